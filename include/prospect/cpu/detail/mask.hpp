// What comparing two vectors gives, and the choice between two by it. AVX-512 has registers of
// their own for this, which GCC 12 leaves again at once: it makes a vector of every mask and a mask
// of that vector. Elsewhere a mask is a vector, all ones where the answer is yes.
#pragma once

#include <prospect/cpu/detail/lanes.hpp>

#include <concepts>
#include <type_traits>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cpu::detail {
inline namespace PROSPECT_CPU_ISA {

/// Not a bool: a formula that branches on it does not compile, and is told why.
template <std::floating_point R>
struct mask {
#if PROSPECT_CPU_VECTOR_BYTES == 64
  using lanes_type = std::conditional_t<std::same_as<R, float>, __mmask16, __mmask8>;
#else
  using lanes_type = typename lane_types<R>::bits;
#endif
  lanes_type lane;

  PROSPECT_INLINE friend mask operator||(mask a, mask b) {
    return {static_cast<lanes_type>(a.lane | b.lane)};
  }
  PROSPECT_INLINE friend mask operator&&(mask a, mask b) {
    return {static_cast<lanes_type>(a.lane & b.lane)};
  }
  template <std::same_as<bool> Bool>
  PROSPECT_INLINE explicit operator Bool() const {
    static_assert(sizeof(Bool) == 0,
                  "prospect: this loss promises to be branch_free, but its formula has an if, a ?: "
                  "or a ! on a comparison: choose with select(condition, a, b), or leave the "
                  "promise out");
    return false;
  }
  PROSPECT_INLINE bool operator[](int k) const {
#if PROSPECT_CPU_VECTOR_BYTES == 64
    return ((lane >> k) & 1) != 0;
#else
    return lane[k] != 0;
#endif
  }
};

#if PROSPECT_CPU_VECTOR_BYTES == 64

#if PROSPECT_CPU_KEEPS_AVX512
template <int predicate>
PROSPECT_INLINE mask<float> compared(floats a, floats b) {
  return {_mm512_cmp_ps_mask((__m512)a, (__m512)b, predicate)};
}
template <int predicate>
PROSPECT_INLINE mask<double> compared(doubles a, doubles b) {
  return {_mm512_cmp_pd_mask((__m512d)a, (__m512d)b, predicate)};
}
template <class R>
PROSPECT_INLINE mask<R> equal(numbers<R> a, numbers<R> b) {
  return compared<_CMP_EQ_OQ>(a, b);
}
template <class R>
PROSPECT_INLINE mask<R> below(numbers<R> a, numbers<R> b) {
  return compared<_CMP_LT_OS>(a, b);
}
template <class R>
PROSPECT_INLINE mask<R> at_most(numbers<R> a, numbers<R> b) {
  return compared<_CMP_LE_OS>(a, b);
}
PROSPECT_INLINE floats chosen_by(mask<float> m, floats a, floats b) {
  return (floats)_mm512_mask_blend_ps(m.lane, (__m512)b, (__m512)a);
}
PROSPECT_INLINE doubles chosen_by(mask<double> m, doubles a, doubles b) {
  return (doubles)_mm512_mask_blend_pd(m.lane, (__m512d)b, (__m512d)a);
}
#else
template <class Compared>
PROSPECT_INLINE auto mask_of(Compared lanes) {
  if constexpr (sizeof(lanes[0]) == 4) {
    return _mm512_movepi32_mask((__m512i)lanes);
  } else {
    return _mm512_movepi64_mask((__m512i)lanes);
  }
}
template <class R>
PROSPECT_INLINE mask<R> equal(numbers<R> a, numbers<R> b) {
  return {mask_of(a == b)};
}
template <class R>
PROSPECT_INLINE mask<R> below(numbers<R> a, numbers<R> b) {
  return {mask_of(a < b)};
}
template <class R>
PROSPECT_INLINE mask<R> at_most(numbers<R> a, numbers<R> b) {
  return {mask_of(a <= b)};
}
PROSPECT_INLINE floats chosen_by(mask<float> m, floats a, floats b) {
  return (floats)_mm512_mask_blend_epi32(m.lane, (__m512i)b, (__m512i)a);
}
PROSPECT_INLINE doubles chosen_by(mask<double> m, doubles a, doubles b) {
  return (doubles)_mm512_mask_blend_epi64(m.lane, (__m512i)b, (__m512i)a);
}
#endif

/// Neither NaN nor infinite, by the bits.
PROSPECT_INLINE mask<float> finite(floats x) {
  const words magnitude = (words)x & 0x7fffffffU;
  return {_mm512_cmplt_epi32_mask((__m512i)magnitude, _mm512_set1_epi32(0x7f800000))};
}
PROSPECT_INLINE mask<double> finite(doubles x) {
  const long_words magnitude = (long_words)x & 0x7fffffffffffffffU;
  return {_mm512_cmplt_epi64_mask((__m512i)magnitude, _mm512_set1_epi64(0x7ff0000000000000))};
}

#else

/// Neither NaN nor infinite, by the bits: what overflows into the sign is neither.
PROSPECT_INLINE mask<float> finite(floats x) {
  using signed_bits = std::int32_t __attribute__((vector_size(sizeof(x))));
  const words above = ((words)x & 0x7fffffffU) + 0x00800000U;
  return {(words)((signed_bits)above >= 0)};
}
PROSPECT_INLINE mask<double> finite(doubles x) {
  using signed_bits = std::int64_t __attribute__((vector_size(sizeof(x))));
  const long_words above = ((long_words)x & 0x7fffffffffffffffU) + 0x0010000000000000U;
  return {(long_words)((signed_bits)above >= 0)};
}

template <class R>
PROSPECT_INLINE mask<R> equal(numbers<R> a, numbers<R> b) {
  return {(typename mask<R>::lanes_type)(a == b)};
}
template <class R>
PROSPECT_INLINE mask<R> below(numbers<R> a, numbers<R> b) {
  return {(typename mask<R>::lanes_type)(a < b)};
}
template <class R>
PROSPECT_INLINE mask<R> at_most(numbers<R> a, numbers<R> b) {
  return {(typename mask<R>::lanes_type)(a <= b)};
}
template <class R>
PROSPECT_INLINE numbers<R> chosen_by(mask<R> m, numbers<R> a, numbers<R> b) {
  return either(m.lane, a, b);
}

#endif

}  // namespace PROSPECT_CPU_ISA
}  // namespace prospect::inline v2::cpu::detail
PROSPECT_STRICT_END
