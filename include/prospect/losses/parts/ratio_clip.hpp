// What policy-gradient losses make of a probability ratio: PPO's clipped surrogate, and the bounds
// that its relatives give it.
#pragma once

#include <prospect/core/wide_math.hpp>
#include <prospect/losses/concepts.hpp>
#include <prospect/losses/parts/along.hpp>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2 {

/// How far a ratio may lead its loss: down to `low` where the advantage is negative, up to `high`
/// where it is positive, and up to `most` where it is negative, if that is not 0.
struct ratio_bounds {
  double low, high;
  double most = 0;
};

namespace detail {

/// The same in the formula's numbers, where compilers see that a batch needs them once.
template <number R>
struct bounds_of_ratio {
  R low, high, most;
};

/// A bound that 0 takes away.
PROSPECT_HD constexpr double bound_or_none(double bound) {
  if (bound > 0) return bound;
  return wide::infinity;
}

/// GRPO's: a positive `delta` bounds the unclipped ratio, whatever the advantage (TRL's two-sided
/// clipping, INTELLECT-2, arXiv:2505.07291).
template <number R>
PROSPECT_HD constexpr bounds_of_ratio<R> two_sided(double epsilon, double epsilon_high,
                                                   double delta) {
  const R high = R(1 + epsilon_high);
  const R bound = R(bound_or_none(delta));
  const auto bound_first = bound < high;
  return {.low = R(1 - epsilon),
          .high = select(bound_first, bound, high),
          .most = select(bound_first, high, bound)};
}

template <class T>
PROSPECT_HD constexpr T clipped(const T& log_ratio, const scalar_of_t<T>& r,
                                const scalar_of_t<T>& advantage,
                                const bounds_of_ratio<scalar_of_t<T>>& bounds) {
  using R = scalar_of_t<T>;
  const R a = advantage;
  return along(log_ratio, [&](const R& /*x*/) {
    const auto rises = a > R(0);
    const R least = select(rises, R(0), bounds.low);
    const R most = select(rises, bounds.high, bounds.most);
    const auto outside = r < least || r > most || a == R(0);
    const R held = -a * clamp(r, least, most);
    // A ratio that is no number any more is of no matter where nothing is gained.
    const R none = 0;
    return value_and_slope<R>{.value = select(a == none, none, held),
                              .slope = select(outside, none, held)};
  });
}

}  // namespace detail

/// The clipped surrogate (Schulman et al. 2017, arXiv:1707.06347, eq. 7), to be minimised:
///
///   -min(A r, A clip(r, low, high)),  r = exp(log_ratio) as a plain number
///
/// On a bound the gradient is whole, beyond it 0.
template <class T>
PROSPECT_HD constexpr T clipped_surrogate(const T& log_ratio, const scalar_of_t<T>& r,
                                          const scalar_of_t<T>& advantage,
                                          const ratio_bounds& bounds) {
  using R = scalar_of_t<T>;
  return detail::clipped(log_ratio, r, advantage,
                         detail::bounds_of_ratio<R>{.low = R(bounds.low),
                                                    .high = R(bounds.high),
                                                    .most = R(detail::bound_or_none(bounds.most))});
}

namespace detail {

/// Why such bounds make no sense, or nullptr.
PROSPECT_INLINE constexpr const char* problem_of_clipping(double epsilon, double epsilon_high) {
  if (!(epsilon >= 0 && epsilon <= 1)) return "epsilon must lie in [0, 1]";
  if (!not_negative(epsilon_high)) return "epsilon_high must not be negative (0 to 1e30)";
  return nullptr;
}

}  // namespace detail

}  // namespace prospect::inline v2
PROSPECT_STRICT_END
