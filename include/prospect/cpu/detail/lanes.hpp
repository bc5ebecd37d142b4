// A few numbers at once: the compiler's own vector types, as wide as the instruction set it
// compiles for, loaded from and stored to every storage type. Plain operators; the two things GCC
// 12 does not find by itself are the x86 instructions for the larger of two numbers (it takes two
// for AVX-512) and for binary16 (it takes ten). The inline namespace carries the instruction set's
// name, so that an archive may hold several builds and the linker never takes one for another.
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

template <class R>
PROSPECT_INLINE numbers<R> sum_of_ways(const tile<R>& t) {
  return (t.way[0] + t.way[1]) + (t.way[2] + t.way[3]);
}
template <class R>
PROSPECT_INLINE numbers<R> highest_of_ways(const tile<R>& t) {
  return larger(larger(t.way[0], t.way[1]), larger(t.way[2], t.way[3]));
}

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

PROSPECT_INLINE double_pair widened(floats x) {
  const float_halves half = halves_of(x);
#if PROSPECT_CPU_VECTOR_BYTES == 64
  // GCC 12 takes two conversions and an insertion for this one instruction.
  return {(doubles)_mm512_maskz_cvtps_pd(0xff, (__m256)half.first),
          (doubles)_mm512_maskz_cvtps_pd(0xff, (__m256)half.second)};
#else
  return {__builtin_convertvector(half.first, doubles),
          __builtin_convertvector(half.second, doubles)};
#endif
}
PROSPECT_INLINE floats narrowed(double_pair x) {
  return joined({__builtin_convertvector(x.first, half_floats),
                 __builtin_convertvector(x.second, half_floats)});
}

// ---- storage ------------------------------------------------------------------------------------

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

// Without an instruction for it, two 16-bit numbers are read as one word: the even ones go to one
// vector, the odd ones to the next. The order inside a tile means nothing to a sum, and the store
// restores it.
PROSPECT_INLINE words even_halves(words u) { return u << 16; }
PROSPECT_INLINE words odd_halves(words u) { return u & 0xffff0000U; }

/// From the bits in the upper half of each word.
PROSPECT_INLINE floats widen(bfloat16, words upper) { return (floats)upper; }
/// The exponent is rebased by an exact multiplication, which also makes subnormals normal floats.
PROSPECT_INLINE floats widen(float16, words upper) {
  const floats x = (floats)((upper & 0x7fff0000U) >> 3) * 0x1p112F;
  // Infinity and NaN come out as 65536 and more: force their exponent.
  const words special = (words)(x >= 65536.0F) & 0x7f800000U;
  return (floats)((words)x | special | (upper & 0x80000000U));
}

/// To bits in the upper half of each word, rounded to nearest even. A NaN that arithmetic made
/// stays one; a payload with all lower bits set would not, and callers keep those away.
PROSPECT_INLINE words narrow(bfloat16, floats x) {
  const auto u = (words)x;
  return u + 0x7fffU + ((u >> 16) & 1U);
}
/// The same arithmetic as float16's conversion, all branches at once.
PROSPECT_INLINE words narrow(float16, floats x) {
  const auto u = (words)x;
  const words magnitude = u & 0x7fffffffU;
  const words rebased = magnitude - 0x38000000U;
  const words normal = (rebased + 0xfffU + ((rebased >> 13) & 1U)) >> 13;
  const words subnormal = (words)((floats)magnitude + 0.5F) - 0x3f000000U;
  words h = magnitude < 0x38800000U ? subnormal : normal;
  h = magnitude >= 0x477ff000U ? words{} + 0x7c00U : h;
  h = magnitude > 0x7f800000U ? words{} + 0x7e00U : h;
  return (h << 16) | (u & 0x80000000U);
}

#if PROSPECT_CPU_VECTOR_BYTES == 64
using binary16_block = __m256i;
PROSPECT_INLINE floats widen(binary16_block h) { return (floats)_mm512_maskz_cvtph_ps(0xffff, h); }
PROSPECT_INLINE binary16_block narrow(floats x) {
  return _mm512_maskz_cvtps_ph(0xffff, (__m512)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
#elif PROSPECT_CPU_VECTOR_BYTES == 32
using binary16_block = __m128i;
PROSPECT_INLINE floats widen(binary16_block h) { return (floats)_mm256_cvtph_ps(h); }
PROSPECT_INLINE binary16_block narrow(floats x) {
  return _mm256_cvtps_ph((__m256)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
#endif

template <storage S>
PROSPECT_INLINE tile<compute_t<S>> load_tile(const S* p) {
  using R = compute_t<S>;
  tile<R> t;
#if PROSPECT_CPU_VECTOR_BYTES > 16
  if constexpr (std::same_as<S, float16>) {
    unrolled<ways>([&](int w) __attribute__((always_inline)) {
      t.way[w] = widen(load_vector<binary16_block>(p + w * lanes<R>));
    });
    return t;
  }
#endif
  if constexpr (sizeof(S) == 2) {
    unrolled<ways / 2>([&](int w) __attribute__((always_inline)) {
      const auto u = load_vector<words>(p + 2 * w * lanes<R>);
      t.way[2 * w] = widen(S{}, even_halves(u));
      t.way[2 * w + 1] = widen(S{}, odd_halves(u));
    });
  } else {
    unrolled<ways>([&](int w) __attribute__((always_inline)) {
      t.way[w] = load_vector<numbers<R>>(p + w * lanes<R>);
    });
  }
  return t;
}

template <storage S>
PROSPECT_INLINE void store_tile(S* p, const tile<compute_t<S>>& t) {
  using R = compute_t<S>;
#if PROSPECT_CPU_VECTOR_BYTES > 16
  if constexpr (std::same_as<S, float16>) {
    unrolled<ways>([&](int w) __attribute__((always_inline)) {
      store_vector(p + w * lanes<R>, narrow(t.way[w]));
    });
    return;
  }
#endif
  if constexpr (sizeof(S) == 2) {
    unrolled<ways / 2>([&](int w) __attribute__((always_inline)) {
      const words even = narrow(S{}, t.way[2 * w]) >> 16;
      const words odd = odd_halves(narrow(S{}, t.way[2 * w + 1]));
      store_vector(p + 2 * w * lanes<R>, even | odd);
    });
  } else {
    unrolled<ways>([&](int w) __attribute__((always_inline)) {
      store_vector(p + w * lanes<R>, t.way[w]);
    });
  }
}

/// A tile that is to be stored again, by `store_changed_tile`, which does not mix with the others.
template <storage S>
PROSPECT_INLINE tile<compute_t<S>> load_tile_to_change(const S* p) {
  return load_tile(p);
}
template <storage S>
PROSPECT_INLINE void store_changed_tile(S* p, const tile<compute_t<S>>& t) {
  store_tile(p, t);
}
#if PROSPECT_CPU_KEEPS_AVX512 && defined(__AVX512BF16__)
/// In order, because the instruction that rounds takes two vectors.
PROSPECT_INLINE tile<float> load_tile_to_change(const bfloat16* p) {
  tile<float> t;
  unrolled<ways>([&](int w) __attribute__((always_inline)) {
    const auto halves = load_vector<__m256i>(p + w * lanes<float>);
    t.way[w] = (floats)((words)_mm512_maskz_cvtepu16_epi32(0xffff, halves) << 16);
  });
  return t;
}
PROSPECT_INLINE void store_changed_tile(bfloat16* p, const tile<float>& t) {
  unrolled<ways / 2>([&](int w) __attribute__((always_inline)) {
    store_vector(p + 2 * w * lanes<float>,
                 (words)_mm512_cvtne2ps_pbh((__m512)t.way[2 * w + 1], (__m512)t.way[2 * w]));
  });
}
#endif

/// The last, partial tile of a row goes through a buffer, so that it takes the same arithmetic.
template <storage S>
PROSPECT_INLINE tile<compute_t<S>> load_part(const S* p, std::int64_t count, compute_t<S> filler) {
  S buffer[tile_size<compute_t<S>>];
  for (int i = 0; i < tile_size<compute_t<S>>; ++i) {
    buffer[i] = i < count ? p[i] : store<S>(filler);
  }
  return load_tile(buffer);
}
template <storage S>
PROSPECT_INLINE void store_part(S* p, const tile<compute_t<S>>& t, std::int64_t count) {
  S buffer[tile_size<compute_t<S>>];
  store_tile(buffer, t);
  for (int i = 0; i < count; ++i) p[i] = buffer[i];
}

/// Asks for the cache lines ahead of a tile: left alone, some hardware leaves half of a core's
/// bandwidth unused. From far away into the second level, which has more requests in flight, from
/// close by into the first. Far is more than arrives while one line is on its way. Never faults, so
/// it may run past the end.
template <storage S>
PROSPECT_INLINE void prefetch_ahead(const S* p) {
  constexpr int lines = (tile_size<compute_t<S>> * static_cast<int>(sizeof(S)) + 63) / 64;
  unrolled<lines>([&](int i) __attribute__((always_inline)) {
    const char* const line = reinterpret_cast<const char*>(p) + std::ptrdiff_t{64} * i;
    __builtin_prefetch(line + 16384, 0, 2);
    __builtin_prefetch(line + 1024, 0, 3);
  });
}

}  // namespace PROSPECT_CPU_ISA

}  // namespace prospect::inline v2::cpu::detail
PROSPECT_STRICT_END
