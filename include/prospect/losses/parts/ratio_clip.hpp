// What the policy-gradient losses share: the clipped surrogate of a probability ratio, and the
// estimators of a KL divergence from one sample.
#pragma once

#include <prospect/losses/parts/along.hpp>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v1 {

/// PPO's clipped surrogate (Schulman et al. 2017, arXiv:1707.06347, eq. 7), to be minimised:
///
///   -min(A r, A clip(r, 1 - low, 1 + high)),  r = exp(log_ratio)
///
/// A positive `delta` bounds the unclipped r from above, where A < 0 has no other bound (two-sided
/// clipping; Ye et al. 2020's dual clip for delta >= 1 + high). Gradients are whole on a bound.
template <class T>
PROSPECT_HD constexpr T clipped_surrogate(const T& log_ratio, const scalar_of_t<T>& advantage,
                                          double low, double high, double delta) {
  using R = scalar_of_t<T>;
  const R a = advantage;
  return along(log_ratio, [&](const R& x) {
    const R r = exp(x);
    const auto above = a > R(0) && r > R(1 + high);
    const auto below = a < R(0) && r < R(1 - low);
    const auto beyond = a < R(0) && R(delta) > R(0) && r > R(delta);
    const R held = select(above, R(1 + high), select(below, R(1 - low), r));
    const R value = select(beyond, R(delta), held);
    return value_and_slope<R>{.value = -a * value,
                              .slope = select(above || below || beyond, R(0), -a * r)};
  });
}

}  // namespace prospect::inline v1
PROSPECT_STRICT_END
