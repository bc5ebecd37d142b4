// What comparing two vectors gives, and the choice between two by it. AVX-512 has registers of
// their own for this, which GCC 12 leaves again at once: it makes a vector of every mask and a mask
// of that vector. Elsewhere a mask is a vector, all ones where the answer is yes.
#pragma once

#include <prospect/cpu/detail/lanes.hpp>

#include <concepts>
#include <type_traits>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v1::cpu::detail {
inline namespace PROSPECT_CPU_ISA {

/// Not a bool, so that a formula which branches on it does not compile.
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
  PROSPECT_INLINE bool operator[](int k) const {
#if PROSPECT_CPU_VECTOR_BYTES == 64
    return ((lane >> k) & 1) != 0;
#else
    return lane[k] != 0;
#endif
  }
};

#if PROSPECT_CPU_VECTOR_BYTES == 64

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
  return m.lane ? a : b;
}

#endif

}  // namespace PROSPECT_CPU_ISA
}  // namespace prospect::inline v1::cpu::detail
PROSPECT_STRICT_END
