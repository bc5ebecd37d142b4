// The 16-bit storage types against an independent definition: the nearest number of that format,
// found by scaling to integers, ties to even.

#include <prospect/core/dtype.hpp>

#include <bit>
#include <cfenv>
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "catch.hpp"
#include "core/float_sweep.hpp"

namespace {

using testing::floats;

struct format {
  int significand_bits;  // with the hidden one
  int least_exponent;    // of the smallest normal number
  double largest;
};

template <class S>
constexpr format format_of =
    std::is_same_v<S, prospect::bfloat16> ? format{8, -126, 0x1.fep127} : format{11, -14, 65504.0};

/// x rounded to the format: a whole number of its last place at x, chosen by nearbyint.
template <class S>
double nearest(float x) {
  const format f = format_of<S>;
  if (x == 0 || !std::isfinite(x)) return x;
  const int exponent = std::max(std::ilogb(x), f.least_exponent) - (f.significand_bits - 1);
  const double rounded =
      std::ldexp(std::nearbyint(std::ldexp(static_cast<double>(x), -exponent)), exponent);
  if (std::abs(rounded) > f.largest) return std::copysign(INFINITY, x);
  return rounded;
}

template <class S>
bool rounds_to_nearest(float x) {
  const auto got = static_cast<float>(S(x));
  if (std::isnan(x)) return std::isnan(got);
  const double want = nearest<S>(x);
  return got == want && std::signbit(got) == std::signbit(want);
}

template <class S>
void check_rounding(floats which) {
  REQUIRE(std::fegetround() == FE_TONEAREST);
  const auto worst =
      testing::worst_over(which, [](float x) { return rounds_to_nearest<S>(x) ? 0.0 : 1.0; });
  CAPTURE(worst.at);
  CHECK(worst.error == 0);
}

}  // namespace

TEMPLATE_TEST_CASE("all 65536 patterns widen to themselves", "[dtype]", prospect::bfloat16,
                   prospect::float16) {
  const format f = format_of<TestType>;
  int wrong = 0;
  for (std::uint32_t pattern = 0; pattern < 65536; ++pattern) {
    const auto bits = static_cast<std::uint16_t>(pattern);
    const auto stored = std::bit_cast<TestType>(bits);
    const auto wide = static_cast<float>(stored);
    // Decoded by the definition of the format.
    const int fraction_bits = f.significand_bits - 1;
    const int exponent_bits = 15 - fraction_bits;
    const int exponent = (bits >> fraction_bits) & ((1 << exponent_bits) - 1);
    const int fraction = bits & ((1 << fraction_bits) - 1);
    const double sign = (bits & 0x8000) != 0 ? -1 : 1;
    if (exponent == (1 << exponent_bits) - 1) {
      const bool right = fraction == 0 ? wide == sign * INFINITY : std::isnan(wide);
      const TestType again{wide};
      const bool kept = fraction == 0 ? again.bits == bits : std::isnan(static_cast<float>(again));
      wrong += right && kept ? 0 : 1;
      continue;
    }
    const int whole = exponent == 0 ? fraction : fraction + (1 << fraction_bits);
    const int last_place = std::max(exponent, 1) - 1 + f.least_exponent - fraction_bits;
    const double want = sign * std::ldexp(whole, last_place);
    wrong += wide == want && TestType(wide).bits == bits ? 0 : 1;
  }
  CHECK(wrong == 0);
}

TEMPLATE_TEST_CASE("floats round to the nearest number, ties to even, densely sampled", "[dtype]",
                   prospect::bfloat16, prospect::float16) {
  check_rounding<TestType>(floats::dense);

  // Every tie, and its two neighbours: halfway between one pattern and the next.
  int wrong = 0;
  for (std::uint32_t pattern = 0; pattern < 65535; ++pattern) {
    const auto low =
        static_cast<float>(std::bit_cast<TestType>(static_cast<std::uint16_t>(pattern)));
    const auto high =
        static_cast<float>(std::bit_cast<TestType>(static_cast<std::uint16_t>(pattern + 1)));
    if (!std::isfinite(low) || !std::isfinite(high)) continue;
    const float tie = low / 2 + high / 2;
    for (const float x : {std::nextafter(tie, low), tie, std::nextafter(tie, high)}) {
      wrong += rounds_to_nearest<TestType>(x) ? 0 : 1;
    }
  }
  CHECK(wrong == 0);
}

TEMPLATE_TEST_CASE("floats round to the nearest number, all 2^32", "[dtype][.exhaustive]",
                   prospect::bfloat16, prospect::float16) {
  check_rounding<TestType>(floats::all);
}

TEST_CASE("rounding at the edges of the formats", "[dtype]") {
  using prospect::bfloat16;
  using prospect::float16;
  CHECK(float16(65504.0F).bits == 0x7bff);
  CHECK(float16(65519.996F).bits == 0x7bff);
  CHECK(float16(65520.0F).bits == 0x7c00);
  CHECK(float16(-1e30F).bits == 0xfc00);
  CHECK(float16(0x1p-24F).bits == 1);
  CHECK(float16(0x1p-25F).bits == 0);
  CHECK(float16(0x1.000002p-25F).bits == 1);
  CHECK(float16(-0.0F).bits == 0x8000);
  CHECK(bfloat16(std::numeric_limits<float>::max()).bits == 0x7f80);
  CHECK(bfloat16(0x1.00p-133F).bits == 1);
  CHECK(bfloat16(1.00390625F).bits == 0x3f80);  // a tie, to even
  // A NaN whose payload is cut off must not turn into infinity.
  CHECK(std::isnan(static_cast<float>(bfloat16(std::bit_cast<float>(0x7f800001U)))));
  CHECK(std::isnan(static_cast<float>(float16(std::bit_cast<float>(0xff800001U)))));
}

TEST_CASE("16-bit numbers convert explicitly and at compile time", "[dtype]") {
  using prospect::bfloat16;
  using prospect::float16;
  STATIC_REQUIRE(static_cast<float>(bfloat16(-2.5F)) == -2.5F);
  STATIC_REQUIRE(static_cast<float>(float16(0x1p-20F)) == 0x1p-20F);
  STATIC_REQUIRE_FALSE(std::is_convertible_v<float, bfloat16>);
  STATIC_REQUIRE_FALSE(std::is_convertible_v<bfloat16, float>);
  STATIC_REQUIRE_FALSE(std::is_convertible_v<float16, float>);
}

TEST_CASE("arithmetic is fp64 for double and fp32 for everything else", "[dtype]") {
  STATIC_REQUIRE(std::is_same_v<prospect::compute_t<double>, double>);
  STATIC_REQUIRE(std::is_same_v<prospect::compute_t<float>, float>);
  STATIC_REQUIRE(std::is_same_v<prospect::compute_t<prospect::bfloat16>, float>);
  STATIC_REQUIRE(std::is_same_v<prospect::compute_t<prospect::float16>, float>);
  STATIC_REQUIRE_FALSE(prospect::storage<int>);
  STATIC_REQUIRE_FALSE(prospect::storage<long double>);
  STATIC_REQUIRE(prospect::load(prospect::store<prospect::bfloat16>(1.5F)) == 1.5F);
  STATIC_REQUIRE(prospect::store<double>(0.1) == 0.1);
}
