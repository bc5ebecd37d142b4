// Probes by bits: which numbers are none, and which are finite, at every neighbour.

#include <prospect/core/strict.hpp>

#include <bit>
#include <cstdint>
#include <limits>

#include "catch.hpp"

using prospect::detail::is_finite;
using prospect::detail::is_nan;

TEMPLATE_TEST_CASE("NaN and infinity are told from their neighbours", "[strict]", float, double) {
  using R = TestType;
  using limits = std::numeric_limits<R>;
  for (const R sign : {R(1), R(-1)}) {
    for (const R x : {R(0), limits::denorm_min(), limits::min(), R(1), limits::max()}) {
      CHECK_FALSE(is_nan(sign * x));
      CHECK(is_finite(sign * x));
    }
    CHECK_FALSE(is_nan(sign * limits::infinity()));
    CHECK_FALSE(is_finite(sign * limits::infinity()));
  }
  // The first and the last NaN of either sign.
  using bits = std::conditional_t<sizeof(R) == 4, std::uint32_t, std::uint64_t>;
  const auto first = static_cast<bits>(std::bit_cast<bits>(limits::infinity()) + 1);
  const bits negative = bits{1} << (8 * sizeof(R) - 1);
  for (const bits pattern : {first, static_cast<bits>(negative - 1)}) {
    for (const bits b : {pattern, static_cast<bits>(pattern | negative)}) {
      CHECK(is_nan(std::bit_cast<R>(b)));
      CHECK_FALSE(is_finite(std::bit_cast<R>(b)));
    }
  }
}

TEST_CASE("the probes are constants where their argument is one", "[strict]") {
  STATIC_REQUIRE(is_finite(1.0F));
  STATIC_REQUIRE_FALSE(is_finite(std::numeric_limits<double>::infinity()));
  STATIC_REQUIRE(is_nan(std::numeric_limits<float>::quiet_NaN()));
}
