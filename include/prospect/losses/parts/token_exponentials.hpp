// What several formulas need of a token's log-ratios, and what takes longest.
#pragma once

#include <prospect/losses/parts/along.hpp>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2 {

namespace detail {

/// e^y - 1 - y, which near 0, where its terms cancel, is y^2 (1/2! + y (1/3! + y (1/4! + ...))).
template <number R>
PROSPECT_HD constexpr R expm1_minus(const R& y) {
  constexpr int terms = in_fp32<R> ? 9 : 14;
  double factorial = in_fp32<R> ? 362880 : 87178291200;
  R series = R(1 / factorial);
  for (int k = terms; k > 2; --k) {
    factorial /= k;
    series = R(1 / factorial) + y * series;
  }
  const auto close = y > R(-0.5) && y < R(0.5);
  return select(close, y * y * series, expm1(y) - y);
}

/// k3 = pi_ref / pi - 1 + log pi - log pi_ref, which estimates a KL divergence, and how it changes
/// with log pi.
template <number R>
PROSPECT_HD constexpr value_and_slope<R> k3(const R& log_reference_ratio) {
  return {.value = expm1_minus(-log_reference_ratio), .slope = -expm1(-log_reference_ratio)};
}

}  // namespace detail

/// Computed where they are asked for: what a formula has if nobody gives it any. A back end that
/// works them out beforehand, for many tokens at once, gives an object with the same members
/// instead, which knows those of the token that it comes with; its `has_reference` is false where
/// no reference was given, which the loss was then found not to read.
struct token_exponentials {
  static constexpr bool has_reference = true;

  /// pi / pi_old, of its logarithm.
  template <number R>
  PROSPECT_HD constexpr R ratio(const R& log_ratio) const {
    return exp(log_ratio);
  }
  template <number R>
  PROSPECT_HD constexpr value_and_slope<R> k3(const R& log_reference_ratio) const {
    return detail::k3(log_reference_ratio);
  }
};

}  // namespace prospect::inline v2
PROSPECT_STRICT_END
