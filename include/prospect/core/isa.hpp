// The name of what the compiler may use of a processor: part of the name of every function that is
// not inlined for certain. A program may then hold several builds of a header, and the linker,
// which keeps one of two functions of the same name, never gives a plain unit the code of an AVX
// unit. Types carry no such name: they go from unit to unit.
#pragma once

#include <prospect/config.hpp>

// 1 if a macro is defined as 1, else 0, as digits of a name.
#define PROSPECT_IF_1 0,
#define PROSPECT_SECOND(first, second, ...) second
#define PROSPECT_PICK(maybe_two) PROSPECT_SECOND(maybe_two 1, 0, 0)  // NOLINT(bugprone-macro-*)
#define PROSPECT_IF(value) PROSPECT_PICK(PROSPECT_IF_##value)
#define PROSPECT_DIGIT(macro) PROSPECT_IF(macro)
#define PROSPECT_PASTE(a, b, c, d, e, f, g, h) a##b##c##d##e##f##g##h
#define PROSPECT_NAME(a, b, c, d, e, f, g, h) PROSPECT_PASTE(a, b, c, d, e, f, g, h)
#define PROSPECT_DIGITS(a, b, c, d, e, f, g, h)                                             \
  PROSPECT_NAME(PROSPECT_DIGIT(a), PROSPECT_DIGIT(b), PROSPECT_DIGIT(c), PROSPECT_DIGIT(d), \
                PROSPECT_DIGIT(e), PROSPECT_DIGIT(f), PROSPECT_DIGIT(g), PROSPECT_DIGIT(h))

// What a reader looks for first.
#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX2__) && \
    defined(__FMA__) && defined(__F16C__)
#define PROSPECT_ISA_LEVEL avx512_
#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#define PROSPECT_ISA_LEVEL avx2_
#elif defined(__AVX__)
#define PROSPECT_ISA_LEVEL avx_
#else
#define PROSPECT_ISA_LEVEL baseline_
#endif

// And every extension that a compiler uses of its own accord, and whether it lets exceptions
// through. (Undefined ones count as 0.)
#if defined(__aarch64__)
#define PROSPECT_ISA                                                                             \
  PROSPECT_NAME(PROSPECT_ISA_LEVEL,                                                              \
                PROSPECT_DIGITS(__ARM_FEATURE_SVE, __ARM_FEATURE_SVE2, __ARM_FEATURE_DOTPROD,    \
                                __ARM_FEATURE_ATOMICS, __ARM_FEATURE_BF16,                       \
                                __ARM_FEATURE_FP16_VECTOR_ARITHMETIC, __ARM_FEATURE_MATMUL_INT8, \
                                __ARM_FEATURE_SVE_BITS),                                         \
                PROSPECT_DIGIT(__EXCEPTIONS), , , , , , )
#else
#define PROSPECT_ISA                                                                               \
  PROSPECT_NAME(                                                                                   \
      PROSPECT_ISA_LEVEL,                                                                          \
      PROSPECT_DIGITS(__SSE3__, __SSSE3__, __SSE4_1__, __SSE4_2__, __SSE4A__, __POPCNT__,          \
                      __LZCNT__, __MOVBE__),                                                       \
      PROSPECT_DIGITS(__AVX__, __AVX2__, __FMA__, __F16C__, __BMI__, __BMI2__, __FMA4__, __XOP__), \
      PROSPECT_DIGITS(__AVX512F__, __AVX512CD__, __AVX512BW__, __AVX512DQ__, __AVX512VL__,         \
                      __AVX512IFMA__, __AVX512VBMI__, __AVX512VBMI2__),                            \
      PROSPECT_DIGITS(__AVX512VNNI__, __AVX512BITALG__, __AVX512VPOPCNTDQ__, __AVX512BF16__,       \
                      __AVX512FP16__, __AVXVNNI__, __GFNI__, __ADX__),                             \
      PROSPECT_DIGIT(__EXCEPTIONS), , )
#endif

// Of the CPU back end's own code. In a .cu file it is another: nvcc takes no vectors in functions
// that are for the device as well, so losses are given one sample after the other there.
#if defined(__CUDACC__)
#define PROSPECT_CPU_ISA PROSPECT_NAME(PROSPECT_ISA, _in_cuda, , , , , , )
#else
#define PROSPECT_CPU_ISA PROSPECT_ISA
#endif
