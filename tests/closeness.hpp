// How far a computed number is from the exact one: in units in the last place, or relatively.

#pragma once

#include <algorithm>
#include <cmath>
#include <concepts>
#include <limits>

namespace testing {

/// The distance between two neighbouring numbers of type R at x.
template <std::floating_point R>
long double ulp_at(long double x) {
  using limits = std::numeric_limits<R>;
  const int exponent = x == 0 ? limits::min_exponent : std::ilogb(x) + 1;
  return std::ldexp(1.0L, std::max(exponent, limits::min_exponent) - limits::digits);
}

/// |got - want| in ulps of R. `terms` is the magnitude of what was subtracted to get `want`, for
/// results that cross zero: no arithmetic in R can be more accurate than its operands.
/// Infinite if only one of the two is NaN, or if they are different infinities.
template <std::floating_point R>
double ulps(R got, long double want, long double terms = 0) {
  constexpr double wrong = std::numeric_limits<double>::infinity();
  if (std::isnan(want) || std::isnan(got)) return std::isnan(want) && std::isnan(got) ? 0 : wrong;
  const long double largest = std::numeric_limits<R>::max();
  if (std::isinf(got) || std::abs(want) > largest) {
    // A value that rounds to infinity may also be the largest number, half an ulp away.
    const R rounded = static_cast<R>(want);
    return rounded == got || (std::abs(got) == largest && std::abs(want) < largest * 1.001L &&
                              std::signbit(got) == std::signbit(want))
               ? 0
               : wrong;
  }
  const long double scale = std::max(std::abs(want), std::abs(terms));
  return static_cast<double>(std::abs(got - want) / ulp_at<R>(scale));
}

/// |got - want| <= relative * |want| + absolute; NaN is near NaN only, an infinity near itself.
inline bool near(long double got, long double want, long double relative,
                 long double absolute = 0) {
  if (std::isnan(want) || std::isnan(got)) return std::isnan(want) && std::isnan(got);
  if (std::isinf(want) || std::isinf(got)) return got == want;
  return std::abs(got - want) <= relative * std::abs(want) + absolute;
}

}  // namespace testing
