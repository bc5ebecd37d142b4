// What a formula is made of where the primitives are not enough: a function that brings its own
// slope, and ways to stay inside a type.
#pragma once

#include <prospect/core/dual.hpp>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2 {

template <class R>
struct value_and_slope {
  R value, slope;
};

/// f(x) for an `f` that gives its value and its slope at a plain number: where what duals make of a
/// formula would lose digits, or be NaN, far out.
template <number R, class F>
PROSPECT_HD constexpr R along(const R& x, const F& f) {
  return f(x).value;
}
template <class R, int N, class F>
PROSPECT_HD constexpr dual<R, N> along(const dual<R, N>& x, const F& f) {
  const value_and_slope<R> at = f(x.value);
  return x.chain(at.value, at.slope);
}

/// x, but where it is larger, `bound`, with the slope of x.
template <number R>
PROSPECT_HD constexpr R at_most(const R& x, double bound) {
  return select(x > R(bound), R(bound), x);
}
template <class R, int N>
PROSPECT_HD constexpr dual<R, N> at_most(dual<R, N> x, double bound) {
  x.value = at_most(x.value, bound);
  return x;
}

/// x, held where exp(x) is a number: from the bound on its slope is 0.
template <class T>
PROSPECT_HD constexpr T held(const T& x,
                             double bound = detail::in_fp32<scalar_of_t<T>> ? 80 : 700) {
  return along(x, [bound](const scalar_of_t<T>& at) {
    using R = scalar_of_t<T>;
    const auto beyond = at > R(bound);
    return value_and_slope<R>{.value = select(beyond, R(bound), at),
                              .slope = select(beyond, R(0), R(1))};
  });
}

}  // namespace prospect::inline v2
PROSPECT_STRICT_END
