// Texts to vectors: splits texts into tokens, and pools the rows of the tokens.
#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <exception>
#include <optional>
#include <string>

#include "add_rows.hpp"
#include "bindings.hpp"
#include "decoder.hpp"
#include "gil.hpp"
#include "packed.hpp"
#include "parallel.hpp"
#include "tokenizer.hpp"

namespace nb = nanobind;

namespace {

constexpr size_t kGrain = 32;               // texts of a unit of work
constexpr size_t kMaxRows = 1 << 12;        // rows that are collected before they are decoded
constexpr size_t kBlock = 16;               // rows decoded at a time, which stay in the L1 cache
constexpr size_t kTextPerThread = 1 << 13;  // bytes; less does not pay for a thread
constexpr size_t kIdsPerThread = 1 << 12;

// Memory of one thread, and the rows of the tokens of some texts: text i has those from bounds[i] to
// bounds[i + 1].
struct Batch {
    Workspace work;
    TokenIds ids;
    Buffer<int64_t> rows;
    Buffer<float> weights;
    Buffer<size_t> bounds;
    Buffer<float> decoded;

    size_t texts() const { return bounds.size() - 1; }
    void clear() {
        rows.resize(0);
        weights.resize(0);
        bounds.resize(0);
        bounds.push(0);
    }
};

// Calls work(begin, end, batch) on grains of [0, count), and rethrows the first of its exceptions.
template <class Work>
void each_grain(size_t count, size_t threads, const Work &work) {
    std::atomic<size_t> next{0};
    std::atomic<bool> has_failed{false};
    std::exception_ptr failure;
    threads = std::max<size_t>(1, std::min(threads, count / kGrain));
    parallel_for(threads, threads, [&](size_t, size_t) {
        try {
            Batch batch;
            for (size_t begin; !has_failed && (begin = next.fetch_add(kGrain)) < count;)
                work(begin, std::min(begin + kGrain, count), batch);
        } catch (...) {
            if (!has_failed.exchange(true)) failure = std::current_exception();
        }
    });
    if (failure) std::rethrow_exception(failure);
}

class Encoder {
  public:
    Encoder(const Tokenizer &tokenizer, const Decoder &decoder, nb::object token_rows,
            nb::object token_weights, size_t tokens, std::optional<size_t> max_characters,
            std::optional<size_t> max_tokens, std::optional<uint32_t> skip, bool normalize)
        : tokenizer_(tokenizer),
          table_(decoder.table()),
          tokens_(tokens),
          max_characters_(max_characters),
          max_tokens_(max_tokens.value_or(SIZE_MAX)),
          skip_(skip),
          normalize_(normalize) {
        if (!token_rows.is_none()) rows_ = View(token_rows, "token_rows", "I");
        if (!token_weights.is_none()) weights_ = View(token_weights, "token_weights", "f");
        check_size(rows_, "rows");
        check_size(weights_, "weights");
    }

    nb::ndarray<nb::numpy, int64_t> encode(nb::handle texts, nb::handle out, size_t threads) const {
        const Texts packed(texts, max_characters_);
        const View to(out, "out", "f", View::Access::write);
        expect_size("size of out", to.size(), packed.count() * table_.dim());
        Buffer<int64_t> counts(packed.count());
        threads = std::min(threads, packed.bytes.size() / kTextPerThread);
        raising_faults([&] {
            const GilRelease released(packed.bytes.size() * kTextWork);
            pool_texts(packed.count(), threads, to.data<float>(), [&](size_t i, Batch &batch) {
                batch.ids.resize(0);
                tokenizer_.append_ids(packed[i], max_tokens_, batch.work, batch.ids);
                counts[i] = add(batch.ids.data(), batch.ids.size(), batch);
            });
        });
        return to_numpy(std::move(counts));
    }

    // Pools the rows of ids[offsets[i] … offsets[i + 1]) for each text i.
    void pool_ids(nb::handle ids, nb::handle offsets, nb::handle out, size_t threads) const {
        const View view(ids, "ids", "lq"), starts(offsets, "offsets", "lq");
        const View to(out, "out", "f", View::Access::write);
        const int64_t *all = view.data<const int64_t>();
        const Buffer<uint64_t> bounds = checked_offsets(starts, view.size());
        const size_t count = bounds.size() - 1;
        expect_size("size of out", to.size(), count * table_.dim());
        for (size_t i = 0; i < view.size(); ++i)
            if (static_cast<uint64_t>(all[i]) >= tokens_)
                throw nb::index_error(("token id " + std::to_string(all[i]) + " is out of range for " +
                                       std::to_string(tokens_) + " tokens")
                                          .c_str());
        threads = std::min(threads, view.size() / kIdsPerThread);
        raising_faults([&] {
            const GilRelease released(view.size() * table_.dim() * sizeof(float));
            pool_texts(count, threads, to.data<float>(), [&](size_t i, Batch &batch) {
                add(all + bounds[i], bounds[i + 1] - bounds[i], batch);
            });
        });
    }

  private:
    void check_size(const View &view, const char *what) const {
        if (view && view.size() != tokens_)
            raise_error("TokenizerError", "there are " + std::to_string(view.size()) + " " + what + " of " +
                                              std::to_string(tokens_) + " tokens");
    }

    // Calls add_text(i, batch) for each text, and writes the mean of its rows to row i of `out`.
    template <class AddText>
    void pool_texts(size_t count, size_t threads, float *out, const AddText &add_text) const {
        each_grain(count, threads, [&](size_t begin, size_t end, Batch &batch) {
            batch.clear();
            for (size_t i = begin; i < end; ++i) {
                add_text(i, batch);
                if (i + 1 < end && batch.rows.size() < kMaxRows) continue;
                pool(batch, out + begin * table_.dim());
                begin = i + 1;
                batch.clear();
            }
        });
    }

    // Adds a text, and returns its number of tokens. Throws TokenizerFault for a token or a row that does not
    // exist.
    template <class Id>
    int64_t add(const Id *ids, size_t count, Batch &batch) const {
        const size_t before = batch.rows.size();
        batch.rows.reserve(count);
        batch.weights.reserve(count);
        for (size_t i = 0; i < count; ++i) {
            const auto id = static_cast<uint64_t>(ids[i]);
            if (id == skip_) continue;
            if (id >= tokens_)
                throw TokenizerFault("the tokenizer returns token " + std::to_string(id) +
                                     ", but there are " + std::to_string(tokens_) + " tokens");
            const uint64_t row = rows_ ? rows_.data<const uint32_t>()[id] : id;
            if (row >= table_.rows())
                throw TokenizerFault("token " + std::to_string(id) + " has row " + std::to_string(row) +
                                     ", but there are " + std::to_string(table_.rows()) + " rows");
            batch.rows.push(static_cast<int64_t>(row));
            if (weights_) batch.weights.push(weights_.data<const float>()[id]);
        }
        batch.bounds.push(batch.rows.size());
        return static_cast<int64_t>(batch.rows.size() - before);
    }

    // Writes the mean of the rows of each text to consecutive rows of `out`.
    void pool(Batch &batch, float *out) const {
        const size_t dim = table_.dim(), count = batch.texts();
        std::fill_n(out, count * dim, 0.0f);
        batch.decoded.resize(kBlock * dim);
        size_t text = 0;
        for (size_t begin = 0; begin < batch.rows.size(); begin += kBlock) {
            const size_t end = std::min(begin + kBlock, batch.rows.size());
            table_.decode(Ids(batch.rows.data()), begin, end, batch.decoded.data());
            for (size_t at = begin, to; at < end; at = to) {
                while (batch.bounds[text + 1] <= at) ++text;
                to = std::min(end, batch.bounds[text + 1]);
                add_rows_(batch.decoded.data() + (at - begin) * dim,
                          weights_ ? batch.weights.data() + at : nullptr, to - at, dim, out + text * dim);
            }
        }
        for (text = 0; text < count; ++text)
            finish(batch.bounds[text + 1] - batch.bounds[text], out + text * dim);
    }

    void finish(size_t count, float *sum) const {
        const size_t dim = table_.dim();
        if (count == 0) return;
        for (size_t j = 0; j < dim; ++j) sum[j] /= static_cast<float>(count);
        if (!normalize_) return;
        constexpr size_t kLanes = 8;
        double squares[kLanes] = {};
        for (size_t at = 0; at < dim / kLanes * kLanes; at += kLanes)
            for (size_t j = 0; j < kLanes; ++j) squares[j] += static_cast<double>(sum[at + j]) * sum[at + j];
        for (size_t j = dim / kLanes * kLanes; j < dim; ++j)
            squares[j % kLanes] += static_cast<double>(sum[j]) * sum[j];
        for (size_t lane = 1; lane < kLanes; ++lane) squares[0] += squares[lane];
        const float norm = static_cast<float>(std::sqrt(squares[0])) + 1e-32f;
        for (size_t j = 0; j < dim; ++j) sum[j] /= norm;
    }

    const Tokenizer &tokenizer_;
    const PackedTable &table_;
    const AddRows add_rows_ = pick_add_rows(simd_level());
    View rows_, weights_;
    size_t tokens_;
    std::optional<size_t> max_characters_;
    size_t max_tokens_;
    std::optional<uint32_t> skip_;
    bool normalize_;
};

}  // namespace

void bind_encoder(nb::module_ &m) {
    nb::class_<Encoder>(m, "Encoder")
        .def(nb::init<const Tokenizer &, const Decoder &, nb::object, nb::object, size_t,
                      std::optional<size_t>, std::optional<size_t>, std::optional<uint32_t>, bool>(),
             nb::arg("tokenizer"), nb::arg("decoder"), nb::arg("token_rows").none(),
             nb::arg("token_weights").none(), nb::arg("tokens"), nb::arg("max_characters").none(),
             nb::arg("max_tokens").none(), nb::arg("skip").none(), nb::arg("normalize"),
             nb::keep_alive<1, 2>(), nb::keep_alive<1, 3>())
        .def("encode", &Encoder::encode)
        .def("pool", &Encoder::pool_ids);
}
