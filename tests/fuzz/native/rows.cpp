// Decoding rows: all instruction sets give the bits of a slow decoder, and nothing is read or written
// outside.
#include "rows.hpp"

#include <cstddef>
#include <vector>

#include "input.hpp"

namespace {

struct Table {
    int nbit;
    uint8_t kind;
    size_t dim, count;
    int window;
    std::unique_ptr<float[]> codebook, column_scale;
    RowLayout layout;
    std::unique_ptr<uint8_t[]> rows;  // contiguous, followed by kRowPadding bytes

    explicit Table(Input &input)
        : nbit(take_nbit(input)),
          kind(input.take<uint8_t>() % 4),
          dim(input.take_size(is_trellis() ? 16 / static_cast<size_t>(nbit) + 1 : 1, 300)),
          count(input.take_size(1, 20)),
          window(is_trellis() ? static_cast<int>(input.take_size(8, 16)) : nbit),
          codebook(make_codebook(input)),
          column_scale(is_trellis() ? input.take_array<float>(dim) : nullptr),
          layout(dim, nbit, codebook.get(), nbit == 32 ? 0 : size_t{1} << window, column_scale.get()),
          rows(input.take_array<uint8_t>(count * layout.stride + kRowPadding)) {}

    std::vector<float> decode(Simd level) const {
        std::vector<const uint8_t *> sources;
        for (size_t i = 0; i < count; ++i) sources.push_back(rows.get() + i * layout.stride);
        auto out = std::unique_ptr<float[]>(new float[count * dim]);
        RowLayout prepared = layout;
        const DecodeRows decode_rows = pick_decode_rows(prepared, level);
        decode_rows(prepared, sources.data(), count, out.get());
        return std::vector<float>(out.get(), out.get() + count * dim);
    }

    // One value at a time; products and uniform levels are the only arithmetic.
    std::vector<float> decode_slowly() const {
        std::vector<float> values;
        for (size_t row = 0; row < count; ++row)
            for (size_t j = 0; j < dim; ++j) {
                size_t code = 0;
                for (size_t k = 0; k < static_cast<size_t>(window); ++k) {
                    const size_t bit = (j * nbit + k) % (dim * nbit);
                    code |= size_t{1} * (rows[row * layout.stride + bit / 8] >> bit % 8 & 1) << k;
                }
                float value;
                if (nbit == 32)
                    std::memcpy(&value, &code, sizeof value);
                else
                    value = column_scale ? codebook[code] * column_scale[j] : codebook[code];
                values.push_back(value);
            }
        return values;
    }

  private:
    static int take_nbit(Input &input) {
        static constexpr int kBits[] = {1, 2, 3, 4, 8, 16, 32};
        return kBits[input.take<uint8_t>() % 7];
    }

    bool is_trellis() const { return nbit == 3 || (nbit <= 4 && kind & 1); }

    std::unique_ptr<float[]> make_codebook(Input &input) const {
        if (nbit == 32) return nullptr;
        const size_t size = size_t{1} << window;
        // Values after the first 64 differ from those in the high bits, so that inputs stay short.
        const auto words = input.take_array<uint32_t>(std::min<size_t>(size, 64));
        auto values = std::unique_ptr<float[]>(new float[size]);
        for (size_t k = 0; k < size; ++k) {
            uint32_t bits = words[k % 64] ^ static_cast<uint32_t>(k / 64) << 16;
            if (kind == 3) bits &= 0xffff0000;  // bfloat16
            std::memcpy(&values[k], &bits, sizeof bits);
        }
        const float offset = static_cast<float>(size - 1) / 2, step = nbit == 16 ? 0x1p-15f : values[0];
        for (size_t k = 0; k < size && kind == 2; ++k) values[k] = (static_cast<float>(k) - offset) * step;
        return values;
    }
};

bool same(float a, float b, bool arithmetic) {
    return std::memcmp(&a, &b, sizeof a) == 0 || (arithmetic && a != a && b != b);  // a NaN may have any bits
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    Input input(data, size);
    const Table table(input);
    const std::vector<float> expected = table.decode_slowly();
    for (Simd level : {Simd::scalar, Simd::avx2, Simd::avx512}) {
        if (level > simd_level()) break;
        const std::vector<float> values = table.decode(level);
        for (size_t i = 0; i < values.size(); ++i)
            expect(same(values[i], expected[i], table.layout.uniform || table.layout.window != 0),
                   "equal bits");
    }
    return 0;
}
