#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <vector>

#include "bindings.hpp"
#include "buffer.hpp"
#include "decoder.hpp"
#include "gil.hpp"
#include "lanes.hpp"
#include "parallel.hpp"

#if SMALLFRY_X86
#include <immintrin.h>
#endif

namespace nb = nanobind;

namespace {

constexpr size_t kScratch = 6144;             // floats decoded at a time, which stay in the L1 cache
constexpr size_t kValuesPerThread = 1 << 20;  // smaller work does not pay for a thread

struct Hit {
    float score;
    int64_t row;
};

// Orders by score, ties by row number.
bool is_better(const Hit &a, const Hit &b) {
    return a.score > b.score || (a.score == b.score && a.row < b.row);
}

// Keeps the best `room` hits in a heap with the worst on top.
class Best {
  public:
    explicit Best(size_t room) : room_(room) { hits_.reserve(room); }

    void offer(Hit hit) {
        if (hits_.size() == room_) {
            if (!is_better(hit, hits_.front())) return;
            std::pop_heap(hits_.begin(), hits_.end(), is_better);
            hits_.pop_back();
        }
        hits_.push_back(hit);
        std::push_heap(hits_.begin(), hits_.end(), is_better);
    }

    const std::vector<Hit> &hits() const { return hits_; }

    std::vector<Hit> sorted() {
        std::sort(hits_.begin(), hits_.end(), is_better);
        return hits_;
    }

  private:
    size_t room_;
    std::vector<Hit> hits_;
};

// The products of a row with the query and with itself. Products of two floats are exact in double, so only
// the order of the sums matters, not fusing: value j of a row goes to lane j % 8.
struct Products {
    double with_query, with_self;
};

using Multiply = void (*)(const double *query, const float *rows, size_t count, size_t dim, Products *out);

Products multiply_row(const double *query, const float *row, size_t dim) {
    double products[kLanes] = {}, squares[kLanes] = {};
    const size_t whole = dim / kLanes * kLanes;
    for (size_t j = 0; j < whole; j += kLanes)
        for (size_t lane = 0; lane < kLanes; ++lane) {
            const double value = row[j + lane];
            products[lane] += value * query[j + lane];
            squares[lane] += value * value;
        }
    for (size_t j = whole; j < dim; ++j) {
        const double value = row[j];
        products[j - whole] += value * query[j];
        squares[j - whole] += value * value;
    }
    return {sum_lanes(products), sum_lanes(squares)};
}

void multiply_plain(const double *query, const float *rows, size_t count, size_t dim, Products *out) {
    for (size_t i = 0; i < count; ++i) out[i] = multiply_row(query, rows + i * dim, dim);
}

#if SMALLFRY_X86
// Intrinsics, because the vectors of lanes.hpp take 1.3 to 2 times as long here.
// Dependent sums leave the processor idle, so kUnrolled rows are summed at once.
constexpr size_t kUnrolled = 4;

SMALLFRY_AVX512 SMALLFRY_INLINE void add_products(const double *query, __m256 row, __m512d &products,
                                                  __m512d &squares) {
    const __m512d value = _mm512_cvtps_pd(row);
    products = _mm512_fmadd_pd(value, _mm512_loadu_pd(query), products);
    squares = _mm512_fmadd_pd(value, value, squares);
}

template <size_t kRows>
SMALLFRY_AVX512 SMALLFRY_INLINE void multiply_rows(const double *query, const float *rows, size_t dim,
                                                   Products *out) {
    __m512d products[kRows], squares[kRows];
    for (size_t i = 0; i < kRows; ++i) products[i] = squares[i] = _mm512_setzero_pd();
    const size_t whole = dim / kLanes * kLanes;
    const __mmask8 rest = static_cast<__mmask8>((1u << (dim - whole)) - 1);
    for (size_t j = 0; j < whole; j += kLanes)
        for (size_t i = 0; i < kRows; ++i)
            add_products(query + j, _mm256_loadu_ps(rows + i * dim + j), products[i], squares[i]);
    for (size_t i = 0; i < kRows && rest; ++i)
        add_products(query + whole, _mm256_maskz_loadu_ps(rest, rows + i * dim + whole), products[i],
                     squares[i]);
    for (size_t i = 0; i < kRows; ++i) {
        double with_query[kLanes], with_self[kLanes];
        _mm512_storeu_pd(with_query, products[i]);
        _mm512_storeu_pd(with_self, squares[i]);
        out[i] = {sum_lanes(with_query), sum_lanes(with_self)};
    }
}

SMALLFRY_AVX512 void multiply_avx512(const double *query, const float *rows, size_t count, size_t dim,
                                     Products *out) {
    size_t i = 0;
    for (; i + kUnrolled <= count; i += kUnrolled)
        multiply_rows<kUnrolled>(query, rows + i * dim, dim, out + i);
    for (; i < count; ++i) multiply_rows<1>(query, rows + i * dim, dim, out + i);
}

SMALLFRY_AVX2 Products multiply_row_avx2(const double *query, const float *row, size_t dim) {
    __m256d products[2] = {}, squares[2] = {};
    float last[kLanes] = {};
    for (size_t j = 0; j < dim; j += kLanes) {
        const float *from = row + j;
        if (j + kLanes > dim)
            from = static_cast<const float *>(std::memcpy(last, from, (dim - j) * sizeof(float)));
        for (size_t half = 0; half < 2; ++half) {
            const __m256d value = _mm256_cvtps_pd(_mm_loadu_ps(from + 4 * half));
            const __m256d other = _mm256_loadu_pd(query + j + 4 * half);
            products[half] = _mm256_add_pd(products[half], _mm256_mul_pd(value, other));
            squares[half] = _mm256_add_pd(squares[half], _mm256_mul_pd(value, value));
        }
    }
    double with_query[kLanes], with_self[kLanes];
    std::memcpy(with_query, products, sizeof products);
    std::memcpy(with_self, squares, sizeof squares);
    return {sum_lanes(with_query), sum_lanes(with_self)};
}

SMALLFRY_AVX2 void multiply_avx2(const double *query, const float *rows, size_t count, size_t dim,
                                 Products *out) {
    for (size_t i = 0; i < count; ++i) out[i] = multiply_row_avx2(query, rows + i * dim, dim);
}
#endif

Multiply pick_multiply(Simd level) {
#if SMALLFRY_X86
    if (level == Simd::avx512) return multiply_avx512;
    if (level == Simd::avx2) return multiply_avx2;
#endif
    static_cast<void>(level);
    return multiply_plain;
}

// A query: its values, zero-padded to whole lanes, and its length.
struct Query {
    Query(const float *from, size_t dim, Multiply multiply) : values((dim + kLanes - 1) / kLanes * kLanes) {
        std::copy_n(from, dim, values.begin());
        Products own;
        multiply(values.data(), from, 1, dim, &own);
        length = std::sqrt(own.with_self);
    }

    std::vector<double> values;
    double length;
};

// The `k` rows of the largest cosine with a query, in decreasing order, except row `exclude`.
// A search ends early, with an incomplete result, when another thread sets `cancelled` to nonzero.
nb::tuple nearest(const Decoder &decoder, nb::handle query, size_t k, int64_t exclude, size_t threads,
                  nb::handle cancelled) {
    const View values(query, "query", "f");
    const PackedTable &table = decoder.table();
    const size_t dim = table.dim(), rows = table.rows();
    expect_size("size of query", values.size(), dim);
    const View flag(cancelled, "cancelled", "B");
    expect_size("size of cancelled", flag.size(), 1);
    const volatile uint8_t *is_cancelled = flag.data<const uint8_t>();
    const Multiply multiply = pick_multiply(simd_level());
    const Query target(values.data<const float>(), dim, multiply);

    const size_t batch = std::max<size_t>(1, std::min(kScratch / dim, rows));
    threads = std::max<size_t>(1, std::min({threads, rows * dim / kValuesPerThread, rows}));
    const size_t room = std::min(k, rows);
    std::vector<Best> bests;
    bests.reserve(threads);
    while (bests.size() < threads) bests.emplace_back(room);
    std::vector<float> scratch(threads * batch * dim);
    std::vector<Products> products(threads * batch);
    std::atomic<size_t> part{0};
    const auto search = [&](size_t begin, size_t end) {
        const size_t number = part++;
        Best &best = bests[number];
        float *decoded = scratch.data() + number * batch * dim;
        Products *sums = products.data() + number * batch;
        for (size_t at = begin; at < end && !*is_cancelled; at += batch) {
            const size_t n = std::min(batch, end - at);
            table.decode(Ids(), at, at + n, decoded);
            multiply(target.values.data(), decoded, n, dim, sums);
            for (size_t i = 0; i < n; ++i) {
                const double cosine = sums[i].with_query / (target.length * std::sqrt(sums[i].with_self));
                const Hit hit{static_cast<float>(cosine), static_cast<int64_t>(at + i)};
                if (std::isfinite(hit.score) && hit.row != exclude) best.offer(hit);
            }
        }
    };
    Best best(room);
    if (room) {
        const GilRelease released(rows * dim * sizeof(float));
        parallel_for(rows, threads, search);
        for (const Best &found : bests)
            for (const Hit &hit : found.hits()) best.offer(hit);
    }
    const std::vector<Hit> hits = best.sorted();
    Buffer<int64_t> ids(hits.size());
    Buffer<float> scores(hits.size());
    for (size_t i = 0; i < hits.size(); ++i) {
        ids[i] = hits[i].row;
        scores[i] = hits[i].score;
    }
    return nb::make_tuple(to_numpy(std::move(ids)), to_numpy(std::move(scores)));
}

}  // namespace

void bind_neighbors(nb::module_ &m) { m.def("nearest", &nearest); }
