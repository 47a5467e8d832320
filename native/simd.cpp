#include "simd.hpp"

#include <algorithm>
#include <cstdlib>
#include <stdexcept>
#include <string>

namespace {

Simd best_level() {
#if SMALLFRY_X86
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        return Simd::avx512;
    if (__builtin_cpu_supports("avx2")) return Simd::avx2;
#endif
    return Simd::scalar;
}

}  // namespace

const char *simd_name(Simd level) {
    return level == Simd::avx512 ? "avx512" : level == Simd::avx2 ? "avx2" : "scalar";
}

Simd simd_level() {
    static const Simd best = best_level();
    const char *requested = std::getenv("SMALLFRY_SIMD");
    if (!requested || !*requested) return best;
    for (Simd level : {Simd::scalar, Simd::avx2, Simd::avx512})
        if (std::string(requested) == simd_name(level)) return std::min(level, best);
    throw std::invalid_argument("SMALLFRY_SIMD is '" + std::string(requested) +
                                "', expected scalar, avx2 or avx512");
}
