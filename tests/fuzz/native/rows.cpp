// Decoding rows: all instruction sets give the same bits, and nothing is read or written outside.
#include "rows.hpp"

#include <cstddef>
#include <vector>

#include "input.hpp"

namespace {

std::vector<float> evenly_spaced(size_t levels, const RowLayout &layout) {
    std::vector<float> values;
    for (size_t k = 0; k < levels; ++k)
        values.push_back((static_cast<float>(k) - layout.offset) * layout.step);
    return values;
}

struct Table {
    RowLayout layout{};
    std::unique_ptr<float[]> codebook, byte_values;
    std::unique_ptr<uint8_t[]> rows;  // contiguous, followed by kRowPadding bytes
    size_t count;

    explicit Table(Input &input) {
        static constexpr int kBits[] = {1, 2, 4, 8, 16, 32};
        layout.nbit = kBits[input.take<uint8_t>() % 6];
        const uint8_t kind = input.take<uint8_t>() % 3;
        layout.dim = input.take_size(1, 70);
        layout.stride = (layout.dim * layout.nbit + 7) / 8;
        layout.grouped = kind == 1 && layout.nbit <= 4;
        layout.uniform = kind == 2 && (layout.nbit == 8 || layout.nbit == 16);
        count = input.take_size(1, 20);
        if (layout.nbit < 32) make_codebook(input);
        rows = input.take_array<uint8_t>(count * layout.stride + kRowPadding);
    }

    std::vector<float> decode(Simd level) const {
        std::vector<const uint8_t *> sources;
        for (size_t i = 0; i < count; ++i) sources.push_back(rows.get() + i * layout.stride);
        sources.resize(count + kRowsAhead, rows.get());
        auto out = std::unique_ptr<float[]>(new float[count * layout.dim]);
        pick_decode_rows(layout, level)(layout, sources.data(), count, out.get());
        return std::vector<float>(out.get(), out.get() + count * layout.dim);
    }

  private:
    void make_codebook(Input &input) {
        const size_t levels = size_t{1} << layout.nbit;
        layout.offset = static_cast<float>(levels - 1) / 2;
        layout.step = layout.nbit == 16 ? 0x1p-15f : input.take<float>();
        if (layout.nbit == 16) {
            static const std::vector<float> wide = evenly_spaced(levels, layout);
            layout.codebook = wide.data();
            return;
        }
        codebook = input.take_array<float>(levels);
        layout.codebook = codebook.get();
        if (layout.uniform) {
            const std::vector<float> values = evenly_spaced(levels, layout);
            std::copy(values.begin(), values.end(), codebook.get());
        }
        if (layout.nbit > 4) return;
        const size_t per_byte = 8 / layout.nbit;
        if (layout.grouped) {
            byte_values = input.take_array<float>(256 * per_byte);
        } else {
            byte_values.reset(new float[256 * per_byte]);
            for (size_t byte = 0; byte < 256; ++byte)
                for (size_t j = 0; j < per_byte; ++j)
                    byte_values[byte * per_byte + j] = codebook[byte >> j * layout.nbit & (levels - 1)];
        }
        layout.byte_values = byte_values.get();
    }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    Input input(data, size);
    const Table table(input);
    const std::vector<float> plain = table.decode(Simd::scalar);
    const Simd best = simd_level();
    for (Simd level : {Simd::avx2, Simd::avx512}) {
        if (level > best) break;
        const std::vector<float> wide = table.decode(level);
        if (table.layout.uniform) {  // arithmetic: a NaN may have any bits
            for (size_t i = 0; i < plain.size(); ++i)
                expect(plain[i] == wide[i] || (plain[i] != plain[i] && wide[i] != wide[i]), "equal values");
        } else {
            expect(std::memcmp(plain.data(), wide.data(), plain.size() * sizeof(float)) == 0, "equal bits");
        }
    }
    return 0;
}
