// Rows of trellis codes: value j is codebook[window j] * column_scale[j].
#include <algorithm>
#include <cstring>

#include "pack.hpp"
#include "rows.hpp"

#if SMALLFRY_X86
#include <immintrin.h>
#endif

namespace {

typedef float Floats __attribute__((vector_size(16)));
typedef double Pairs __attribute__((vector_size(16)));  // of floats, moved only

SMALLFRY_INLINE uint64_t load_word(const uint8_t *from) {
    uint64_t word;
    std::memcpy(&word, from, sizeof word);
    return word;
}

// The values of eight windows, from the low bit of `word` on, looked up in a table of values or of pairs.
template <int kBits, bool kByPairs>
SMALLFRY_INLINE void eight_values(uint64_t word, uint64_t mask, const float *table, const float *scale,
                                  float *out) {
    for (int j = 0; j < 8; j += 4) {
        Floats values, scales;
        if constexpr (kByPairs) {
            double pairs[2];
            for (int i = 0; i < 2; ++i)
                std::memcpy(pairs + i, table + 2 * (word >> (j + 2 * i) * kBits & mask), sizeof(double));
            values = (Floats)Pairs{pairs[0], pairs[1]};
        } else {
            const auto value = [&](int i) { return table[word >> (j + i) * kBits & mask]; };
            values = Floats{value(0), value(1), value(2), value(3)};
        }
        std::memcpy(&scales, scale + j, sizeof scales);
        values *= scales;
        std::memcpy(out + j, &values, sizeof values);
    }
}

// Eight values begin at a byte and need less than 64 bits.
template <int kBits, bool kByPairs>
void trellis_plain(const RowLayout &t, Sources sources, size_t n, float *out) {
    const size_t bits = t.dim * kBits, whole = t.dim / 8, rest = t.dim % 8;
    const size_t inner = bits < 64 ? 0 : std::min(whole, (bits - 64) / (8 * kBits) + 1);
    const float *scale = t.column_scale.data(), *table = kByPairs ? t.group_values.data() : t.codebook;
    const uint64_t mask = (uint64_t{1} << (t.window + (kByPairs ? kBits : 0))) - 1;
    for (size_t i = 0; i < n; ++i, out += t.dim) {
        const uint8_t *in = sources[i];
        for (size_t j = 0; j < inner; ++j)
            eight_values<kBits, kByPairs>(load_word(in + j * kBits), mask, table, scale + 8 * j, out + 8 * j);
        // The last bits of the ring, and after them its first.
        const auto ring = [&](size_t j) {
            const size_t left = bits - 8 * j * kBits;
            const uint64_t word = load_word(in + j * kBits);
            return left < 64 ? (word & ((uint64_t{1} << left) - 1)) | load_word(in) << left : word;
        };
        for (size_t j = inner; j < whole; ++j)
            eight_values<kBits, kByPairs>(ring(j), mask, table, scale + 8 * j, out + 8 * j);
        if (!rest) continue;
        const uint64_t word = ring(whole);
        for (size_t j = 0; j < rest; ++j)
            out[8 * whole + j] =
                table[(word >> j * kBits & mask) * (kByPairs ? 2 : 1)] * scale[8 * whole + j];
    }
}

#if SMALLFRY_X86
SMALLFRY_INLINE int load_int(const uint8_t *from) {
    int value;
    std::memcpy(&value, from, sizeof value);
    return value;
}

#define SMALLFRY_VBMI __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi")))

// Cuts 64 windows of 8 bits, in the order in which interleaving within lanes of 16 bytes leaves the values:
// byte 16 * lane + 4 * part + i of a register is for value 16 * part + 4 * lane + i. A register has eight
// words of windows from two places; the four from each place are within four bytes.
template <int kBits>
struct Cut {
    alignas(64) uint8_t bytes[64], shifts[64];

    constexpr Cut() : bytes(), shifts() {
        for (int place = 0; place < 16; ++place) {
            const int bit = (16 * (place % 4) + place / 4 * 4) * kBits;
            for (int i = 0; i < 4; ++i) {
                bytes[4 * place + i] = static_cast<uint8_t>(bit / 8 + i);
                shifts[4 * place + i] = static_cast<uint8_t>(place % 2 * 32 + bit % 8 + i * kBits);
            }
        }
    }
};

template <int kBits>
constexpr Cut<kBits> kCut{};

// The bytes of a table of 256 at the windows.
SMALLFRY_VBMI SMALLFRY_INLINE __m512i look_up(const __m512i *table, __m512i windows) {
    return _mm512_mask_blend_epi8(_mm512_movepi8_mask(windows),
                                  _mm512_permutex2var_epi8(table[0], windows, table[1]),
                                  _mm512_permutex2var_epi8(table[2], windows, table[3]));
}

// Part `part` of 64 values from their two bytes.
SMALLFRY_VBMI SMALLFRY_INLINE __m512 widen(__m512i low, __m512i high, size_t part) {
    const __m512i zero = _mm512_setzero_si512();
    const __m512i halves = part < 2 ? _mm512_unpacklo_epi8(low, high) : _mm512_unpackhi_epi8(low, high);
    return _mm512_castsi512_ps(part % 2 ? _mm512_unpackhi_epi16(zero, halves)
                                        : _mm512_unpacklo_epi16(zero, halves));
}

struct Planes {
    __m512i low[4], high[4];
};

// What the values of a row are multiplied by, and the mean, which may be null.
struct Factors {
    const float *column_scale, *mean;
    __m512 row_scale;
    bool streams;
};

SMALLFRY_VBMI SMALLFRY_INLINE __m512 load_some(const float *from, size_t count) {
    if (count >= 16) return _mm512_loadu_ps(from);
    return _mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << count) - 1), from);
}

// Values at `at` of a row, of which `count` are needed.
template <bool kScaled>
SMALLFRY_VBMI SMALLFRY_INLINE __m512 scale_part(__m512 values, const Factors &factors, size_t at,
                                                size_t count) {
    values = _mm512_mul_ps(values, load_some(factors.column_scale + at, count));
    if constexpr (!kScaled) return values;
    values = _mm512_mul_ps(values, factors.row_scale);
    return factors.mean ? _mm512_add_ps(values, load_some(factors.mean + at, count)) : values;
}

// Writes the values of 64 windows to `at` of a row, but `count` at most.
template <Dtype kDtype, bool kScaled>
SMALLFRY_VBMI SMALLFRY_INLINE void store_values(const Planes &planes, __m512i windows, const Factors &factors,
                                                size_t at, size_t count, void *row) {
    const __m512i low = look_up(planes.low, windows), high = look_up(planes.high, windows);
    if constexpr (kDtype == Dtype::float32) {
        float *out = static_cast<float *>(row) + at;
        for (size_t part = 0; part < 4 && count > 16 * part; ++part) {
            const size_t left = count - 16 * part;
            const __m512 values = scale_part<kScaled>(widen(low, high, part), factors, at + 16 * part, left);
            if (kScaled && factors.streams)
                stream(out + 16 * part, _mm512_castps_si512(values));
            else if (left >= 16)
                _mm512_storeu_ps(out + 16 * part, values);
            else
                _mm512_mask_storeu_ps(out + 16 * part, static_cast<__mmask16>((1u << left) - 1), values);
        }
    } else {
        uint16_t *out = static_cast<uint16_t *>(row) + at;
        for (size_t part = 0; part < 4 && count > 16 * part; part += 2) {
            const size_t left = count - 16 * part;
            const __m512 first = scale_part<kScaled>(widen(low, high, part), factors, at + 16 * part, left);
            const __m512 second = scale_part<kScaled>(widen(low, high, part + 1), factors,
                                                      at + 16 * part + 16, left > 16 ? left - 16 : 0);
            const __m512i rounded = round_parts<kDtype>(first, second);
            if (factors.streams)
                stream(out + 16 * part, rounded);
            else if (left >= 32)
                _mm512_storeu_si512(out + 16 * part, rounded);
            else
                _mm512_mask_storeu_epi16(out + 16 * part, (1u << left) - 1, rounded);
        }
    }
}

// The 8 * kBits + 1 bytes of 64 windows, and few others: the next row may not be in the cache.
template <int kBits>
SMALLFRY_VBMI SMALLFRY_INLINE __m512i load_codes(const uint8_t *from) {
    const __m128i first = _mm_loadu_si128(reinterpret_cast<const __m128i *>(from));
    if (kBits == 1) return _mm512_castsi128_si512(first);
    if (kBits == 2)
        return _mm512_inserti32x4(_mm512_castsi128_si512(first), _mm_cvtsi32_si128(load_int(from + 16)), 1);
    const __m256i most = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(from));
    if (kBits == 3) return _mm512_castsi256_si512(most);
    return _mm512_inserti32x4(_mm512_castsi256_si512(most), _mm_cvtsi32_si128(load_int(from + 32)), 2);
}

// Windows of 8 bits and bfloat16 values, whose two bytes are looked up in registers, 64 at a time.
template <int kBits, Dtype kDtype, bool kScaled>
SMALLFRY_VBMI SMALLFRY_INLINE void trellis_vbmi(const RowLayout &t, Sources sources, size_t n,
                                                const float *scales, const float *mean, bool streams,
                                                void *to) {
    Planes planes;
    std::memcpy(&planes, t.byte_planes.data(), sizeof planes);
    const __m512i shifts = _mm512_load_si512(kCut<kBits>.shifts);
    const __m512i bytes = _mm512_load_si512(kCut<kBits>.bytes);
    constexpr size_t kBlock = 8 * kBits;
    const size_t bits = t.dim * kBits,
                 whole = (bits + kBits - 8) / (8 * kBlock);  // blocks before a window wraps
    // The other values are cut from the last 32 bytes of the row, with the first bits of the ring after them.
    const size_t tail = t.stride - std::min<size_t>(t.stride, 32), end = bits / 8 - tail;
    const __mmask64 last = uint64_t{1} << end;
    const __m512i row_bits =
        _mm512_mask_set1_epi8(_mm512_movm_epi8(last - 1), last, static_cast<char>((1 << bits % 8) - 1));
    Factors factors{t.column_scale.data(), mean, _mm512_setzero_ps(), streams};
    for (size_t i = 0; i < n; ++i) {
        const uint8_t *in = sources[i];
        void *out = static_cast<uint8_t *>(to) + i * t.dim * itemsize(kDtype);
        if constexpr (kScaled) factors.row_scale = _mm512_set1_ps(scales[i]);
        for (size_t block = 0; block < whole; ++block) {
            const __m512i codes = load_codes<kBits>(in + block * kBlock);
            const __m512i windows =
                _mm512_multishift_epi64_epi8(shifts, _mm512_permutexvar_epi8(bytes, codes));
            store_values<kDtype, kScaled>(planes, windows, factors, 64 * block, 64, out);
        }
        const int first = (in[0] & 0x7f) << bits % 8;
        __m512i codes =
            _mm512_castsi256_si512(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(in + tail)));
        codes = _mm512_and_si512(codes, row_bits);
        codes = _mm512_or_si512(codes, _mm512_maskz_set1_epi8(last, static_cast<char>(first)));
        codes = _mm512_or_si512(codes, _mm512_maskz_set1_epi8(last << 1, static_cast<char>(first >> 8)));
        for (size_t block = whole; 64 * block < t.dim; ++block) {
            const __m512i at =
                _mm512_add_epi8(bytes, _mm512_set1_epi8(static_cast<char>(block * kBlock - tail)));
            const __m512i windows = _mm512_multishift_epi64_epi8(shifts, _mm512_permutexvar_epi8(at, codes));
            store_values<kDtype, kScaled>(planes, windows, factors, 64 * block, t.dim - 64 * block, out);
        }
    }
}

template <int kBits>
SMALLFRY_VBMI void decode_vbmi(const RowLayout &t, Sources sources, size_t n, float *out) {
    trellis_vbmi<kBits, Dtype::float32, false>(t, sources, n, nullptr, nullptr, false, out);
}

template <int kBits, Dtype kDtype>
SMALLFRY_VBMI void write_vbmi(const RowLayout &t, Sources sources, size_t n, const float *scales,
                              const float *mean, bool streams, void *out) {
    trellis_vbmi<kBits, kDtype, true>(t, sources, n, scales, mean, streams, out);
}

bool has_vbmi(const RowLayout &layout, Simd level) {
    return level == Simd::avx512 && !layout.byte_planes.empty() && __builtin_cpu_supports("avx512vbmi");
}

template <int kBits>
WriteRows pick_dtype(Dtype dtype) {
    switch (dtype) {
        case Dtype::float32:
            return write_vbmi<kBits, Dtype::float32>;
        case Dtype::float16:
            return write_vbmi<kBits, Dtype::float16>;
        default:
            return write_vbmi<kBits, Dtype::bfloat16>;
    }
}

#endif

template <int kBits>
DecodeRows pick_width(const RowLayout &layout, Simd level) {
#if SMALLFRY_X86
    if (has_vbmi(layout, level)) return decode_vbmi<kBits>;
#endif
    static_cast<void>(level);
    return layout.group_values.empty() ? trellis_plain<kBits, false> : trellis_plain<kBits, true>;
}

}  // namespace

WriteRows pick_trellis_writer(const RowLayout &layout, Dtype dtype, Simd level) {
#if SMALLFRY_X86
    if (has_vbmi(layout, level)) {
        switch (layout.nbit) {
            case 1:
                return pick_dtype<1>(dtype);
            case 2:
                return pick_dtype<2>(dtype);
            case 3:
                return pick_dtype<3>(dtype);
            default:
                return pick_dtype<4>(dtype);
        }
    }
#endif
    static_cast<void>(layout), static_cast<void>(dtype), static_cast<void>(level);
    return nullptr;
}

DecodeRows pick_trellis_rows(const RowLayout &layout, Simd level) {
    switch (layout.nbit) {
        case 1:
            return pick_width<1>(layout, level);
        case 2:
            return pick_width<2>(layout, level);
        case 3:
            return pick_width<3>(layout, level);
        default:
            return pick_width<4>(layout, level);
    }
}
