// How far a computed number is from the exact one: in units in the last place, or relatively.

#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <concepts>
#include <cstdint>
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

/// The same of a float, from a double that carries more digits than it is judged by: several times
/// as fast, where all floats are asked.
inline double ulps(float got, double want, double terms = 0) {
  const double scale = std::max(std::abs(want), std::abs(terms));
  if (!(std::abs(got) <= std::numeric_limits<float>::max()) ||
      !(scale <= std::numeric_limits<float>::max())) {
    return ulps<float>(got, static_cast<long double>(want), static_cast<long double>(terms));
  }
  constexpr std::uint64_t exponent = 0x7ff0000000000000U, digits = std::uint64_t{23} << 52;
  const double power = std::bit_cast<double>(std::bit_cast<std::uint64_t>(scale) & exponent);
  const double normal = std::max<double>(power, std::numeric_limits<float>::min());
  const double ulp = std::bit_cast<double>(std::bit_cast<std::uint64_t>(normal) - digits);
  return std::abs(got - want) / ulp;
}

/// |got - want| <= relative * |want| + absolute; NaN is near NaN only, an infinity near itself.
inline bool near(long double got, long double want, long double relative,
                 long double absolute = 0) {
  if (std::isnan(want) || std::isnan(got)) return std::isnan(want) && std::isnan(got);
  if (std::isinf(want) || std::isinf(got)) return got == want;
  return std::abs(got - want) <= relative * std::abs(want) + absolute;
}

}  // namespace testing
