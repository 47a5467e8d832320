// Encodes rows with a trellis code: finds the ring of bits whose windows select the nearest values.
#include "trellis.hpp"

#include <nanobind/nanobind.h>

#include <numeric>

#include "bindings.hpp"
#include "gil.hpp"
#include "parallel.hpp"
#include "view.hpp"

namespace nb = nanobind;

namespace {

using Extend = void (*)(const Trellis &, Buffers &, size_t j, size_t position, uint32_t *steps);

// Extends the best of the paths that lead to each next path by value `j`; ties go to the first. The first
// step of a cycle clears the codes, the last one stores them.
template <size_t nbit, class Lane, bool kFloats, bool kFirst, bool kLast>
SMALLFRY_INLINE void extend(const Trellis &trellis, Buffers &buffers, size_t j, size_t position,
                            uint32_t *steps) {
    using Floats = typename Lane::Floats;
    using Ints = typename Lane::Ints;
    constexpr size_t kBranches = size_t{1} << nbit;
    constexpr int32_t kCodes = (1 << (kFloats ? 1 : kHistory / nbit) * nbit) - 1;
    const size_t groups = trellis.paths() / kBranches;
    const Floats x = Lane::template load<Floats>(&buffers.values[j * Lane::size]);
    const Ints terms = Lane::template load<Ints>(&buffers.terms[j * Lane::size]);
    float *scaled = buffers.scaled.data();
    for (size_t state = 0; kFloats && state < groups * kBranches * kBranches; ++state)
        scaled[state] = trellis.codebook[state] * trellis.column_scale[j];
    const int32_t *costs = buffers.costs.data(), *levels = trellis.levels.data();
    int32_t *next_costs = buffers.next_costs.data();
    const Ints base = Lane::template load<Ints>(costs) & ~kCodes;
    Ints kept{};
    for (size_t group = 0; group < groups; ++group) {
        Ints from[kBranches];
        for (size_t code = 0; code < kBranches; ++code) {
            from[code] = Lane::template load<Ints>(costs + (group * kBranches + code) * Lane::size);
            if (kFirst) from[code] = (kFloats ? from[code] : from[code] - base) & ~kCodes;
            if (!kFloats) from[code] |= static_cast<int32_t>(code << position * nbit);
        }
        for (size_t branch = 0; branch < kBranches; ++branch) {
            const size_t path = branch * groups + group;
            Ints best{};
            for (size_t code = 0; code < kBranches; ++code) {
                const size_t state = path * kBranches + code;
                Ints reached;
                if (kFloats) {
                    const Floats difference = x - scaled[state];
                    reached = (Ints)((Floats)from[code] + difference * difference);
                    reached = (reached & ~kCodes) | static_cast<int32_t>(code);
                } else {
                    reached = Lane::add_products(from[code], terms, levels[state]);
                }
                best = code == 0 ? reached : Lane::minimum(best, reached);
            }
            Lane::store(next_costs + path * Lane::size, best);
            if (!kLast) continue;
            kept = kept << kHistory | (best & kCodes);
            const size_t stored = group * kBranches + branch;
            if (stored % kInWord == kInWord - 1) Lane::store(steps + stored / kInWord * Lane::size, kept);
        }
    }
}

// Searches the paths of one row in each lane (Viterbi, 1967).
template <class Lane>
class Search {
    using Floats = typename Lane::Floats;
    using Ints = typename Lane::Ints;

  public:
    // `extend` has the steps that do not begin a cycle and those that do; of these, those that do not end a
    // cycle and those that do.
    SMALLFRY_INLINE Search(const Trellis &trellis, Buffers &buffers, const Extend (&extend)[2][2])
        : trellis_(trellis),
          buffers_(buffers),
          extend_(extend),
          paths_(trellis.paths()),
          nbit_(trellis.nbit),
          cycle_(trellis.cycle()),
          codes_(trellis.codes()) {}

    // Writes the codes of `count` rows.
    SMALLFRY_INLINE void encode(const float *x, size_t count, uint8_t *codes) {
        if (count < Lane::size) std::fill(buffers_.values.begin(), buffers_.values.end(), 0.0f);
        for (size_t i = 0; i < count; ++i)
            for (size_t j = 0; j < trellis_.dim; ++j)
                buffers_.values[j * Lane::size + i] = x[i * trellis_.dim + j];
        if (!trellis_.in_floats) round_terms();
        std::fill(buffers_.packed.begin(), buffers_.packed.end(), 0);
        const size_t segments = trellis_.segments();
        for (size_t segment = 0; segment < segments; ++segment) find_border(segment);
        if (trellis_.borders() > 1) try_borders();
        std::copy_n(border(0), Lane::size, border(segments));
        for (size_t segment = 0; segment < segments; ++segment) encode_segment(segment);
        const size_t stride = trellis_.stride();
        for (size_t i = 0; i < count; ++i) {
            const uint32_t *words = &buffers_.packed[i];
            size_t at = 0;
            for (; at + 4 <= stride; at += 4)
                std::memcpy(codes + i * stride + at, words + at / 4 * Lane::size, 4);
            if (at < stride) std::memcpy(codes + i * stride + at, words + at / 4 * Lane::size, stride - at);
        }
    }

  private:
    uint32_t *border(size_t segment) { return &buffers_.borders[segment * Lane::size]; }

    // Finds the factors of v and of v * v of each value, in the finest units that keep the largest in range.
    SMALLFRY_INLINE void round_terms() {
        const float *values = buffers_.values.data();
        Floats peak = Floats{} + 1.0f;
        for (size_t j = 0; j < trellis_.dim; ++j) {
            const Floats size = Lane::template load<Floats>(values + j * Lane::size) *
                                (trellis_.slopes[j] * trellis_.weights[j] / 2);
            peak = size > peak ? size : peak;
            peak = -size > peak ? -size : peak;
        }
        const auto limit = static_cast<float>(trellis_.limit());
        const float most = 2 * limit * (codes_ + 1);
        const Floats unit = limit / peak;
        for (size_t j = 0; j < trellis_.dim; ++j) {
            Floats weight = rounded(unit * trellis_.weights[j]);
            weight = (weight > 1.0f ? weight : Floats{} + 1.0f) * (codes_ + 1.0f);
            Floats slope = Lane::template load<Floats>(values + j * Lane::size) * trellis_.slopes[j] * weight;
            slope = slope < most ? slope : Floats{} + most;
            slope = slope > -most ? slope : Floats{} - most;
            const Ints low = __builtin_convertvector(rounded(slope), Ints);
            Lane::store(&buffers_.terms[j * Lane::size],
                        (low & 0xFFFF) | __builtin_convertvector(weight, Ints) << 16);
        }
    }

    // Rounds numbers below 2**22 to integers, half to even.
    static SMALLFRY_INLINE Floats rounded(Floats values) { return values + 0x1.8p23f - 0x1.8p23f; }

    // Finds the path at the border before a segment, on the best of all around it.
    SMALLFRY_INLINE void find_border(size_t segment) {
        const size_t reach = trellis_.reach(), dim = trellis_.dim, at = trellis_.border(segment);
        std::fill(buffers_.costs.begin(), buffers_.costs.end(), 0);
        advance<false>((at + reach * (dim - 1)) % dim, reach);
        advance<true>(at, reach);
        Ints least = load_costs(0), best{};
        for (size_t path = 1; path < paths_; ++path) {
            const Ints costs = load_costs(path);
            best = costs < least ? Ints{} + static_cast<int32_t>(path) : best;
            least = Lane::minimum(least, costs);
        }
        for (size_t cycle = cycles(reach); cycle-- > 0;) go_back(best, cycle, cycle_width(cycle, reach));
        Lane::store(border(segment), best);
    }

    // Replaces the path at the border of a short ring by the one with the best ring, of those that are the
    // cheapest to reach.
    SMALLFRY_INLINE void try_borders() {
        std::fill(buffers_.costs.begin(), buffers_.costs.end(), 0);
        const size_t reach = trellis_.reach(), dim = trellis_.dim, count = trellis_.borders();
        advance<false>(reach * (dim - 1) % dim, reach);
        for (size_t i = 0; i < Lane::size; ++i) {
            uint32_t *order = &buffers_.order[i * paths_];
            std::iota(order, order + paths_, 0);
            std::partial_sort(order, order + count, order + paths_, [&](uint32_t a, uint32_t b) {
                const int32_t cost_a = cost(a, i) & ~codes_, cost_b = cost(b, i) & ~codes_;
                return cost_a != cost_b ? cost_a < cost_b : a < b;
            });
        }
        int64_t best[kMaxLanes];
        std::fill_n(best, Lane::size, std::numeric_limits<int64_t>::max());
        uint32_t paths[kMaxLanes];
        std::copy_n(border(0), Lane::size, paths);
        for (size_t candidate = 0; candidate <= count; ++candidate) {
            for (size_t i = 0; candidate && i < Lane::size; ++i)
                paths[i] = buffers_.order[i * paths_ + candidate - 1];
            start(paths);
            int64_t total[kMaxLanes] = {};
            advance<false>(0, dim, total);
            for (size_t i = 0; i < Lane::size; ++i) {
                total[i] += cost(paths[i], i) & ~codes_;
                if (!(total[i] < best[i])) continue;
                best[i] = total[i];
                border(0)[i] = paths[i];
            }
        }
    }

    // Packs the codes of the best path between the borders of a segment.
    SMALLFRY_INLINE void encode_segment(size_t segment) {
        const size_t first = trellis_.border(segment), length = trellis_.border(segment + 1) - first;
        start(border(segment));
        advance<true>(first, length);
        Ints paths = Lane::template load<Ints>(border(segment + 1));
        for (size_t cycle = cycles(length); cycle-- > 0;) {
            const size_t width = cycle_width(cycle, length), bit = (first + cycle * cycle_) * nbit_;
            const Ints codes = go_back(paths, cycle, width);
            uint32_t *word = &buffers_.packed[bit / 32 * Lane::size];
            Lane::store(word, Lane::template load<Ints>(word) | codes << bit % 32);
            if (bit % 32 + width > 32) {
                word += Lane::size;
                Lane::store(word, Lane::template load<Ints>(word) | codes >> (32 - bit % 32));
            }
        }
    }

    int32_t &cost(size_t path, size_t lane) { return buffers_.costs[path * Lane::size + lane]; }

    SMALLFRY_INLINE Ints load_costs(size_t path) {
        return Lane::template load<Ints>(&cost(path, 0)) & ~codes_;
    }

    SMALLFRY_INLINE void start(const uint32_t *paths) {
        std::fill(buffers_.costs.begin(), buffers_.costs.end(), trellis_.penalty());
        for (size_t i = 0; i < Lane::size; ++i) cost(paths[i], i) = 0;
    }

    size_t cycles(size_t count) const { return (count + cycle_ - 1) / cycle_; }

    // Bits of the codes of a cycle of `count` values.
    size_t cycle_width(size_t cycle, size_t count) const {
        return std::min(cycle_, count - cycle * cycle_) * nbit_;
    }

    // Moves from paths to the best ones that lead to them, `width` bits before. Returns these bits.
    SMALLFRY_INLINE Ints go_back(Ints &paths, size_t cycle, size_t width) {
        const size_t group_bits = trellis_.state_bits - 2 * nbit_, words = trellis_.words();
        const Ints kept = (paths & ((1 << group_bits) - 1)) << nbit_ | paths >> group_bits;
        constexpr auto kPaths = static_cast<int32_t>(kInWord);
        Ints codes{};
        for (size_t word = 0; word < words; ++word) {
            const uint32_t *steps = &buffers_.steps[(cycle * words + word) * Lane::size];
            codes = (kept & -kPaths) == static_cast<int32_t>(word) * kPaths ? Lane::template load<Ints>(steps)
                                                                            : codes;
        }
        codes = codes >> (~kept & (kPaths - 1)) * kHistory & codes_;
        paths = (paths << width | codes) & static_cast<int32_t>(paths_ - 1);
        return codes;
    }

    // Extends all paths by `count` values from `first` on around the ring. What is subtracted from all costs
    // of a row is added to `total`.
    template <bool kStored>
    SMALLFRY_INLINE void advance(size_t first, size_t count, int64_t *total = nullptr) {
        for (size_t step = 0, j = first; step < count; ++step) {
            const size_t position = step % cycle_;
            uint32_t *steps = &buffers_.steps[kStored ? step / cycle_ * trellis_.words() * Lane::size : 0];
            const bool last = kStored && (position + 1 == cycle_ || step + 1 == count);
            if (!trellis_.in_floats && position == 0 && total)
                for (size_t i = 0; i < Lane::size; ++i) total[i] += cost(0, i) & ~codes_;
            extend_[position == 0][last](trellis_, buffers_, j, position, steps);
            buffers_.costs.swap(buffers_.next_costs);
            j = j + 1 == trellis_.dim ? 0 : j + 1;
        }
    }

    const Trellis &trellis_;
    Buffers &buffers_;
    const Extend (&extend_)[2][2];
    const size_t paths_, nbit_, cycle_;
    const int32_t codes_;  // the bits of the codes of a cycle
};

using Encode = void (*)(const Trellis &, Buffers &, const Extend (&)[2][2], const float *, size_t, uint8_t *);

template <class Lane>
SMALLFRY_INLINE void encode(const Trellis &trellis, Buffers &buffers, const Extend (&extend)[2][2],
                            const float *x, size_t rows, uint8_t *codes) {
    Search<Lane> search(trellis, buffers, extend);
    for (size_t row = 0; row < rows; row += Lane::size)
        search.encode(x + row * trellis.dim, std::min(Lane::size, rows - row),
                      codes + row * trellis.stride());
}

// Compiles the kernel for an instruction set with registers of `bytes` bytes. Most of its time goes into
// `extend`, which alone knows the number of bits when it is compiled.
#define SMALLFRY_TARGET(name, bytes, target)                                                              \
    struct name {                                                                                         \
        using Lane = Lanes<bytes>;                                                                        \
        template <size_t nbit, bool kFloats, bool kFirst, bool kLast>                                     \
        target static void extend(const Trellis &trellis, Buffers &buffers, size_t j, size_t position,    \
                                  uint32_t *steps) {                                                      \
            ::extend<nbit, Lane, kFloats, kFirst, kLast>(trellis, buffers, j, position, steps);           \
        }                                                                                                 \
        target static void encode(const Trellis &trellis, Buffers &buffers, const Extend (&extend)[2][2], \
                                  const float *x, size_t rows, uint8_t *codes) {                          \
            ::encode<Lane>(trellis, buffers, extend, x, rows, codes);                                     \
        }                                                                                                 \
    };

SMALLFRY_TARGET(Plain, 16, )
#if SMALLFRY_X86
SMALLFRY_TARGET(Avx2, 32, SMALLFRY_AVX2)
SMALLFRY_TARGET(Vnni, 64, SMALLFRY_VNNI)
#endif

struct Kernel {
    Encode encode;
    size_t lanes;
    Extend extend[2][2];
};

template <class Target, size_t nbit, bool kFloats>
Kernel make() {
    // Of floats, each step begins a cycle.
    return {Target::encode,
            Target::Lane::size,
            {{Target::template extend<nbit, kFloats, kFloats, false>,
              Target::template extend<nbit, kFloats, kFloats, true>},
             {Target::template extend<nbit, kFloats, true, false>,
              Target::template extend<nbit, kFloats, true, true>}}};
}

template <class Target, size_t nbit>
Kernel make(bool in_floats) {
    return in_floats ? make<Target, nbit, true>() : make<Target, nbit, false>();
}

template <class Target>
Kernel make(size_t nbit, bool in_floats) {
    switch (nbit) {
        case 1:
            return make<Target, 1>(in_floats);
        case 2:
            return make<Target, 2>(in_floats);
        case 3:
            return make<Target, 3>(in_floats);
        default:
            return make<Target, 4>(in_floats);
    }
}

Kernel pick_kernel(size_t nbit, bool in_floats) {
#if SMALLFRY_X86
    const Simd level = simd_level();
    if (level == Simd::avx512 && __builtin_cpu_supports("avx512vnni")) return make<Vnni>(nbit, in_floats);
    if (level != Simd::scalar) return make<Avx2>(nbit, in_floats);
#endif
    return make<Plain>(nbit, in_floats);
}

void encode_trellis(nb::handle x, nb::handle codebook, nb::handle column_scale, size_t nbit, nb::handle codes,
                    size_t threads) {
    const View values(x, "x", "f"), levels(codebook, "codebook", "f"),
        scales(column_scale, "column_scale", "f");
    const View packed(codes, "codes", "B", View::Access::write);
    if (nbit < 1 || nbit > 4) throw nb::value_error("a trellis code has 1, 2, 3 or 4 bits a value");
    expect_size("number of dimensions of x", values.ndim(), 2);
    size_t state_bits = 8;
    while (state_bits < 16 && size_t{1} << state_bits < levels.size()) ++state_bits;
    expect_size("size of codebook", levels.size(), size_t{1} << state_bits);
    const size_t dim = values.shape(1);
    expect_size("size of column_scale", scales.size(), dim);
    expect_size("size of codes", packed.size(), values.shape(0) * ((dim * nbit + 7) / 8));
    if (dim * nbit < state_bits) throw nb::value_error("a row has fewer bits than a window");
    const Trellis trellis(levels.data<const float>(), scales.data<const float>(), dim, nbit, state_bits);
    const Kernel kernel = pick_kernel(nbit, trellis.in_floats);
    const size_t groups = (values.shape(0) + kernel.lanes - 1) / kernel.lanes;
    threads = std::max<size_t>(1, std::min(threads, groups));
    std::vector<Buffers> buffers(threads, Buffers(trellis, kernel.lanes));
    const GilRelease released(values.nbytes() * (levels.size() / 256));
    parallel_for(threads, threads, [&](size_t begin, size_t end) {
        for (size_t part = begin; part < end; ++part) {
            const size_t first = std::min(values.shape(0), groups * part / threads * kernel.lanes);
            const size_t last = std::min(values.shape(0), groups * (part + 1) / threads * kernel.lanes);
            kernel.encode(trellis, buffers[part], kernel.extend,
                          values.data<const float>() + first * trellis.dim, last - first,
                          packed.data<uint8_t>() + first * trellis.stride());
        }
    });
}

}  // namespace

void bind_trellis(nb::module_ &m) { m.def("encode_trellis", &encode_trellis); }
