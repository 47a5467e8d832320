// The instruction set in use: the best that the CPU supports, limited by SMALLFRY_SIMD.
#pragma once

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define SMALLFRY_X86 1
#define SMALLFRY_AVX2 __attribute__((target("avx2")))
#define SMALLFRY_AVX512 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl")))
#define SMALLFRY_VNNI __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")))
#else
#define SMALLFRY_X86 0
#endif

#if defined(__GNUC__) || defined(__clang__)
#define SMALLFRY_INLINE inline __attribute__((always_inline))
#define SMALLFRY_PREFETCH(address) __builtin_prefetch(address)
#else
#define SMALLFRY_INLINE inline
#define SMALLFRY_PREFETCH(address) static_cast<void>(address)
#endif

// Orders streaming stores before later ones.
#if SMALLFRY_X86
#define SMALLFRY_STORE_FENCE() __builtin_ia32_sfence()
#else
#define SMALLFRY_STORE_FENCE() static_cast<void>(0)
#endif

enum class Simd { scalar, avx2, avx512 };

// Throws std::invalid_argument for an unknown value of SMALLFRY_SIMD.
Simd simd_level();
const char *simd_name(Simd level);
