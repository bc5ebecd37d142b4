// The version, and the few macros that every header is written with.
#pragma once

#if (defined(_MSVC_LANG) ? _MSVC_LANG : __cplusplus) < 202002L
#error \
    "prospect needs C++20: pass -std=c++20 (CMake: link prospect::prospect; .cu files: see prospect_cuda_std)"
#endif
#if defined(PROSPECT_SINGLE_HEADER)
#error \
    "prospect: a header of <prospect/...> after prospect_single.hpp: include the one or the others"
#endif

#define PROSPECT_VERSION_MAJOR 0
#define PROSPECT_VERSION_MINOR 3
#define PROSPECT_VERSION_PATCH 0

// A small function that never leaves its caller. Nothing of it stands in an object file, so that a
// linker cannot give one unit what another was compiled for (core/isa.hpp).
#define PROSPECT_INLINE __attribute__((always_inline)) inline

/// What lets a formula run on host and device.
#if defined(__CUDACC__)
#define PROSPECT_HD __host__ __device__ __attribute__((always_inline))
#else
#define PROSPECT_HD __attribute__((always_inline))
#endif

// Between these two, arithmetic means what it says, whatever -ffast-math and its relatives allow a
// host's own code: what rounding took from a number is computed as a difference that they would
// cancel, and NaN is looked for where they promise there is none. Every header with a line of
// arithmetic stands between them.
//
// Pragmas do not follow a function into its caller: GCC gives what is always inlined the caller's
// flags. So the primitives of a formula, which stand in a host's own functions, are PROSPECT_APART:
// inlined wherever the flags are ours, called where they are not. What is not inlined for certain
// lives in a namespace that carries the instruction set's name.
#if defined(__clang__)
#define PROSPECT_STRICT_BEGIN _Pragma("float_control(push)") _Pragma("float_control(precise, on)")
#define PROSPECT_STRICT_END _Pragma("float_control(pop)")
#elif defined(__GNUC__) && !defined(__CUDA_ARCH__) &&                                   \
    (__FINITE_MATH_ONLY__ || defined(__ASSOCIATIVE_MATH__) || defined(__FAST_MATH__) || \
     defined(__RECIPROCAL_MATH__) || defined(__NO_SIGNED_ZEROS__))
#if defined(__x86_64__) || defined(__i386__)
// -ffinite-math-only takes this with it, and does not give it back: NaN compares as less, and
// equal.
#define PROSPECT_STRICT_COMPARISONS _Pragma("GCC target(\"ieee-fp\")")
#else
#define PROSPECT_STRICT_COMPARISONS
#endif
#if defined(__CUDACC__)  // which hands the pragmas on, and calls them unknown
#define PROSPECT_STRICT_BEGIN                                                                \
  _Pragma("nv_diagnostic push") _Pragma("nv_diag_suppress 1675") _Pragma("GCC push_options") \
      _Pragma("GCC optimize(\"no-fast-math\")")                                              \
          PROSPECT_STRICT_COMPARISONS _Pragma("nv_diagnostic pop")
#else
#define PROSPECT_STRICT_BEGIN \
  _Pragma("GCC push_options") _Pragma("GCC optimize(\"no-fast-math\")") PROSPECT_STRICT_COMPARISONS
#endif
#define PROSPECT_STRICT_END _Pragma("GCC pop_options")
// A pragma gives it to no template.
#if __FINITE_MATH_ONLY__ && (defined(__x86_64__) || defined(__i386__)) && !defined(__CUDACC__)
#define PROSPECT_APART __attribute__((target("ieee-fp"))) inline
#else
#define PROSPECT_APART inline
#endif
#else
#define PROSPECT_STRICT_BEGIN
#define PROSPECT_STRICT_END
#endif
// clang's pragma reaches arithmetic and comparisons but no choice: of two numbers one of which may
// be NaN, -ffinite-math-only lets it take either. So there the bits are chosen.
#if defined(__clang__) && __FINITE_MATH_ONLY__
#define PROSPECT_CHOOSES_BITS 1
#else
#define PROSPECT_CHOOSES_BITS 0
#endif
#if !defined(PROSPECT_APART)
#define PROSPECT_APART PROSPECT_INLINE
#endif
#if defined(__CUDACC__)
#define PROSPECT_HD_APART __host__ __device__ PROSPECT_APART
#else
#define PROSPECT_HD_APART PROSPECT_APART
#endif

static_assert(0.1 != 0.1F,
              "prospect: -fsingle-precision-constant takes the digits of every double");

/// Everything lives in an inline namespace that carries the ABI version, so that two versions
/// linked into one program cannot be taken for each other.
namespace prospect::inline v2 {}
