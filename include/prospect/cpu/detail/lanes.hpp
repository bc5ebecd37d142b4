// A few numbers at once: the compiler's own vector types, as wide as the instruction set it
// compiles for. Plain operators; what GCC 12 does not find by itself is the x86 instruction for the
// larger of two numbers (it takes two for AVX-512). The inline namespace carries the instruction
// set's name, so that an archive may hold several builds and the linker never takes one for
// another.
#pragma once

#include <prospect/core/dtype.hpp>
#include <prospect/core/isa.hpp>
#include <prospect/core/strict.hpp>

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

// What a width has is decided here and nowhere else, so that a name always means the same code.
#if defined(__CUDACC__)
#define PROSPECT_CPU_VECTOR_BYTES 16
#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#include <immintrin.h>
#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__)
#define PROSPECT_CPU_VECTOR_BYTES 64
#else
#define PROSPECT_CPU_VECTOR_BYTES 32
#endif
#else
#if defined(__SSE2__)
#include <emmintrin.h>
#endif
#define PROSPECT_CPU_VECTOR_BYTES 16
#endif

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cpu::detail {

using prospect::detail::is_finite;
using prospect::detail::is_nan;

inline namespace PROSPECT_CPU_ISA {

using floats = float __attribute__((vector_size(PROSPECT_CPU_VECTOR_BYTES)));
using doubles = double __attribute__((vector_size(PROSPECT_CPU_VECTOR_BYTES)));
using words = std::uint32_t __attribute__((vector_size(PROSPECT_CPU_VECTOR_BYTES)));
using long_words = std::uint64_t __attribute__((vector_size(PROSPECT_CPU_VECTOR_BYTES)));
/// As many floats as there are doubles in a vector.
using half_floats = float __attribute__((vector_size(PROSPECT_CPU_VECTOR_BYTES / 2)));

template <std::floating_point R>
struct lane_types;
template <>
struct lane_types<float> {
  using numbers = floats;
  using bits = words;
};
template <>
struct lane_types<double> {
  using numbers = doubles;
  using bits = long_words;
};
template <class R>
using numbers = typename lane_types<R>::numbers;
template <class R>
inline constexpr int lanes = PROSPECT_CPU_VECTOR_BYTES / sizeof(R);

/// Vectors worked on side by side: enough to hide the latency of a multiply-add, few enough to stay
/// in registers.
inline constexpr int ways = 4;
template <class R>
inline constexpr int tile_size = ways * lanes<R>;
template <class R>
struct tile {
  numbers<R> way[ways];
};

/// Calls f(0) ... f(n - 1), unrolled whatever the compiler thinks of it.
template <int n, class F>
PROSPECT_INLINE void unrolled(const F& f) {
  [&]<int... i>(std::integer_sequence<int, i...>) __attribute__((always_inline)) { (f(i), ...); }
  (std::make_integer_sequence<int, n>{});
}

template <class Numbers, class R>
PROSPECT_INLINE Numbers every_lane(R x) {
  return x - Numbers{};  // x - 0 is x, -0 included
}

// Where choices are made by bits, the instructions that AVX-512 has for them are a host's to change
// as well; comparisons are not.
#if PROSPECT_CPU_VECTOR_BYTES == 64 && !PROSPECT_CHOOSES_BITS
#define PROSPECT_CPU_KEEPS_AVX512 1
#else
#define PROSPECT_CPU_KEEPS_AVX512 0
#endif

/// condition ? a : b, where the condition compared numbers like them.
template <class Numbers, class Condition>
PROSPECT_INLINE Numbers either(Condition condition, Numbers a, Numbers b) {
#if PROSPECT_CHOOSES_BITS
  return (Numbers)(condition ? (Condition)a : (Condition)b);
#else
  return condition ? a : b;
#endif
}
/// The larger number; `b` where either is NaN.
template <class Numbers>
PROSPECT_INLINE Numbers larger(Numbers a, Numbers b) {
#if PROSPECT_CPU_KEEPS_AVX512
  if constexpr (std::same_as<Numbers, floats>)
    return (floats)_mm512_maskz_max_ps(0xffff, (__m512)a, (__m512)b);
  if constexpr (std::same_as<Numbers, doubles>) {
    return (doubles)_mm512_maskz_max_pd(0xff, (__m512d)a, (__m512d)b);
  }
#endif
  return either(a > b, a, b);
}
/// The smaller number; `b` where either is NaN.
template <class Numbers>
PROSPECT_INLINE Numbers smaller(Numbers a, Numbers b) {
#if PROSPECT_CPU_KEEPS_AVX512
  if constexpr (std::same_as<Numbers, floats>)
    return (floats)_mm512_maskz_min_ps(0xffff, (__m512)a, (__m512)b);
  if constexpr (std::same_as<Numbers, doubles>) {
    return (doubles)_mm512_maskz_min_pd(0xff, (__m512d)a, (__m512d)b);
  }
#endif
  return either(a < b, a, b);
}

/// Whether a > b in any lane.
template <class Numbers>
PROSPECT_INLINE bool any_above(Numbers a, Numbers b) {
#if PROSPECT_CPU_KEEPS_AVX512
  if constexpr (std::same_as<Numbers, floats>) {
    return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_GT_OQ) != 0;
  } else {
    return _mm512_cmp_pd_mask((__m512d)a, (__m512d)b, _CMP_GT_OQ) != 0;
  }
#elif PROSPECT_CPU_VECTOR_BYTES == 32
  return _mm256_movemask_epi8((__m256i)(a > b)) != 0;
#else
  const auto above = a > b;
  std::uint64_t bits[PROSPECT_CPU_VECTOR_BYTES / 8];
  std::memcpy(bits, &above, sizeof(bits));
  std::uint64_t any = 0;
  for (const std::uint64_t word : bits) any |= word;
  return any != 0;
#endif
}

/// The smallest number that results are: what is below it is 0.
template <std::floating_point R>
inline constexpr R smallest_normal = (std::numeric_limits<R>::min)();

/// a b where x is not below `least`, which NaN never is, and 0 elsewhere: results that a processor
/// would take a hundred cycles for each, subnormal ones, are never formed. `a` is finite there.
template <class Numbers>
PROSPECT_INLINE Numbers product_unless_below(Numbers x, Numbers least, Numbers a, Numbers b) {
#if PROSPECT_CPU_KEEPS_AVX512
  if constexpr (std::same_as<Numbers, floats>) {
    const auto kept = _mm512_cmp_ps_mask((__m512)x, (__m512)least, _CMP_NLT_UQ);
    return (floats)_mm512_maskz_mul_ps(kept, (__m512)a, (__m512)b);
  } else {
    const auto kept = _mm512_cmp_pd_mask((__m512d)x, (__m512d)least, _CMP_NLT_UQ);
    return (doubles)_mm512_maskz_mul_pd(kept, (__m512d)a, (__m512d)b);
  }
#else
  using bits = typename lane_types<std::remove_cvref_t<decltype(x[0])>>::bits;
  return a * (Numbers)((bits)b & ~(bits)(x < least));
#endif
}
template <class Numbers>
PROSPECT_INLINE Numbers without_sign(Numbers x) {
  using R = std::remove_cvref_t<decltype(x[0])>;
  using bits = typename lane_types<R>::bits;
  return (Numbers)((bits)x & (~bits{} >> 1));
}
/// a b, or 0 where that is below the smallest normal number; a and b are below 2^60.
template <class Numbers>
PROSPECT_INLINE Numbers normal_product(Numbers a, Numbers b) {
  using R = std::remove_cvref_t<decltype(a[0])>;
  const Numbers raised = a * R(0x1p60) * b;
  return product_unless_below(without_sign(raised),
                              every_lane<Numbers>(smallest_normal<R> * R(0x1p60)), raised,
                              every_lane<Numbers>(R(0x1p-60)));
}

#if PROSPECT_CPU_VECTOR_BYTES > 16
inline constexpr bool has_fma = true;
/// a b + c rounded once, whatever the optimiser is told.
PROSPECT_INLINE floats fused(floats a, floats b, floats c) {
#if PROSPECT_CPU_VECTOR_BYTES == 64
  return (floats)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#else
  return (floats)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#endif
}
#else
inline constexpr bool has_fma = false;
PROSPECT_INLINE floats fused(floats a, floats b, floats c) { return a * b + c; }  // never asked
#endif

/// The vector's elements, combined pairwise: `f` takes two numbers.
template <class R, class F>
PROSPECT_INLINE R fold(numbers<R> x, const F& f) {
  R element[lanes<R>];
  std::memcpy(element, &x, sizeof(x));
  for (int n = lanes<R> / 2; n > 0; n /= 2) {
    for (int i = 0; i < n; ++i) element[i] = f(element[i], element[i + n]);
  }
  return element[0];
}

struct double_pair {
  doubles first, second;
};
/// Both halves of a vector, and back. Through memory, which is all nvcc knows, they would wait for
/// one another.
struct float_halves {
  half_floats first, second;
};
#if defined(__CUDACC__)
PROSPECT_INLINE float_halves halves_of(floats x) {
  float_halves y;
  std::memcpy(&y, &x, sizeof(y));
  return y;
}
PROSPECT_INLINE floats joined(float_halves x) {
  floats y;
  std::memcpy(&y, &x, sizeof(y));
  return y;
}
#else
PROSPECT_INLINE float_halves halves_of(floats x) {
  return [&]<int... i>(std::integer_sequence<int, i...>) __attribute__((always_inline)) {
    return float_halves{__builtin_shufflevector(x, x, i...),
                        __builtin_shufflevector(x, x, (lanes<double> + i)...)};
  }
  (std::make_integer_sequence<int, lanes<double>>{});
}
PROSPECT_INLINE floats joined(float_halves x) {
  return [&]<int... i>(std::integer_sequence<int, i...>) __attribute__((always_inline)) {
    return (floats)__builtin_shufflevector(x.first, x.second, i...);
  }
  (std::make_integer_sequence<int, lanes<float>>{});
}
#endif

PROSPECT_INLINE doubles widened(half_floats x) {
#if PROSPECT_CPU_VECTOR_BYTES == 64
  // GCC 12 takes two conversions and an insertion for this one instruction.
  return (doubles)_mm512_maskz_cvtps_pd(0xff, (__m256)x);
#else
  return __builtin_convertvector(x, doubles);
#endif
}
PROSPECT_INLINE double_pair widened(floats x) {
  const float_halves half = halves_of(x);
  return {widened(half.first), widened(half.second)};
}
PROSPECT_INLINE floats narrowed(double_pair x) {
  return joined({__builtin_convertvector(x.first, half_floats),
                 __builtin_convertvector(x.second, half_floats)});
}

template <class Vector, class T>
PROSPECT_INLINE Vector load_vector(const T* p) {
  Vector x;
  std::memcpy(&x, p, sizeof(x));
  return x;
}
template <class Vector, class T>
PROSPECT_INLINE void store_vector(T* p, Vector x) {
  std::memcpy(static_cast<void*>(p), &x, sizeof(x));
}

}  // namespace PROSPECT_CPU_ISA

}  // namespace prospect::inline v2::cpu::detail
PROSPECT_STRICT_END
