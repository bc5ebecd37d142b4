// pow and its two derivatives: within 2 ulp of the textbook on pairs of numbers of every kind, and
// the C library's values at the edges, but for NaN, which is handed on.

#include <prospect/core/dual.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>
#include <mutex>
#include <thread>
#include <type_traits>
#include <vector>

#include "catch.hpp"
#include "closeness.hpp"
#include "oracle/scalar.hpp"
#include "random.hpp"
#include "special_numbers.hpp"

namespace {

using oracle::real;
using testing::infinity;
using testing::ulps;

constexpr float no_number = std::numeric_limits<float>::quiet_NaN();

real power(real x, real p) { return std::isnan(x) || std::isnan(p) ? x + p : std::pow(x, p); }
// An exponent beyond all odd doubles has no neighbour of the other parity.
real slope(real x, real p) {
  return p == 0 ? 0 : p * std::pow(x, std::abs(p) > 0x1p53L ? p : p - 1);
}
real slope_in_exponent(real x, real p) {
  if (x == 0 && p >= 0) return 0;
  if (std::isinf(x) && x > 0 && p < 0) return 0;
  return std::pow(x, p) * std::log(x);
}

/// The largest error of pow and both slopes, whichever way they are asked for; slopes are free
/// where there is no value.
template <class R>
double error_at(R x, R p) {
  using dual2 = prospect::dual<R, 2>;
  constexpr double wrong = std::numeric_limits<double>::infinity();
  const auto same = [](R a, R b) { return a == b || (std::isnan(a) && std::isnan(b)); };
  const real want = power(x, p);
  const dual2 y = pow(dual2::variable(x, 0), dual2::variable(p, 1));
  const dual2 of_base = pow(dual2::variable(x, 0), p);
  const dual2 of_exponent = pow(x, dual2::variable(p, 1));
  if (!same(y.value, prospect::pow(x, p)) || !same(y.value, of_base.value) ||
      !same(y.value, of_exponent.value)) {
    return wrong;
  }
  const double error = ulps(y.value, want);
  if (std::isnan(want)) return error;
  if (!same(y.partial[0], of_base.partial[0]) || !same(y.partial[1], of_exponent.partial[1]) ||
      of_base.partial[1] != 0 || of_exponent.partial[0] != 0) {
    return wrong;
  }
  return std::max(
      {error, ulps(y.partial[0], slope(x, p)), ulps(y.partial[1], slope_in_exponent(x, p))});
}

struct pair {
  float base, exponent;
};

/// Any two floats, and such as have a result that is neither 0 nor infinite.
pair some_pair(testing::random_source& random) {
  const auto any = [&] { return std::bit_cast<float>(static_cast<std::uint32_t>(random.bits())); };
  const auto for_result = [&](float base) {
    return static_cast<float>(random.uniform(-104, 89) / std::log(std::abs(base)));
  };
  switch (random.integer(0, 5)) {
    case 0:
      return {any(), any()};
    case 1: {
      const float base = std::abs(any());
      return {base, for_result(base)};
    }
    case 2: {
      const double distance = std::exp2(-random.uniform(0, 24));
      const auto base = static_cast<float>(random.chance(0.5) ? 1 + distance : 1 - distance / 2);
      return {base, for_result(base)};
    }
    case 3:
      return {static_cast<float>(random.normal(10)), static_cast<float>(random.integer(-40, 40))};
    case 4: {
      constexpr std::array simple{-2.0F, -1.0F, -0.5F, 0.0F, 0.25F, 0.5F, 1.0F, 1.5F, 2.0F, 3.0F};
      return {any(), simple[static_cast<std::size_t>(random.integer(0, 9))]};
    }
    default:
      return {static_cast<float>(random.uniform(0, 3)), static_cast<float>(random.normal(3))};
  }
}

struct worst_pair {
  double error = 0;
  pair at{};
};

worst_pair worst_of(std::int64_t count, std::uint64_t seed) {
  testing::random_source random{seed};
  worst_pair worst;
  for (std::int64_t i = 0; i < count; ++i) {
    const pair at = some_pair(random);
    const double error = error_at(at.base, at.exponent);
    if (std::isnan(error) || error > worst.error) worst = {error, at};
  }
  return worst;
}

}  // namespace

TEST_CASE("a power and its derivatives are within 2 ulp in fp32, on a million pairs", "[power]") {
  const worst_pair worst = worst_of(1000000, 3);
  CAPTURE(worst.at.base, worst.at.exponent);
  CHECK(worst.error <= 2);
}

TEST_CASE("a power and its derivatives are within 2 ulp in fp32, on 10^9 pairs",
          "[power][.exhaustive]") {
  std::mutex guard;
  worst_pair worst;
  std::vector<std::jthread> threads;
  const unsigned n = std::max(1U, std::thread::hardware_concurrency());
  for (unsigned i = 0; i < n; ++i) {
    threads.emplace_back([&, i] {
      const worst_pair mine = worst_of(1000000000 / n, 1000 + i);
      const std::lock_guard lock{guard};
      if (std::isnan(mine.error) || mine.error > worst.error) worst = mine;
    });
  }
  threads.clear();  // joins
  CAPTURE(worst.at.base, worst.at.exponent);
  CHECK(worst.error <= 2);
}

TEST_CASE("a power and its derivatives are within 4 ulp in fp64", "[power]") {
  testing::random_source random{5};
  CAPTURE(random.seed());
  for (int i = 0; i < 100000; ++i) {
    // Not next to the ends of the range, where the slope's exponent, which is rounded, tells.
    const double base = std::exp(random.normal(20));
    const double exponent = random.uniform(-600, 600) / std::log(base);
    CAPTURE(base, exponent);
    REQUIRE(error_at(base, exponent) <= 4);
  }
}

TEST_CASE("a power at the edges is the C library's", "[power]") {
  const float tiny = std::numeric_limits<float>::denorm_min();
  const float huge = std::numeric_limits<float>::max();
  const std::vector<float> edges{0,     1,    2,      3,     0.5F,      1.5F,     0.99F,
                                 1.01F, 4,    7,      1e10F, 16777215,  16777216, 8388607.5F,
                                 tiny,  huge, 1e-30F, 1e30F, HUGE_VALF, 1e-40F};
  for (const float a : edges) {
    for (const float b : edges) {
      for (const float x : {a, -a}) {
        for (const float p : {b, -b}) {
          CAPTURE(x, p);
          const float got = prospect::pow(x, p);
          const auto want = static_cast<float>(std::pow(real{x}, real{p}));
          if (std::isinf(want) || want == 0) {
            CHECK(got == want);
            CHECK(std::signbit(got) == std::signbit(want));
          } else {
            CHECK(ulps(got, std::pow(real{x}, real{p})) <= 2);
          }
          const double d = prospect::pow(double{x}, double{p});
          CHECK((d == std::pow(double{x}, double{p}) || std::isnan(d)));
          CHECK(std::isnan(d) == std::isnan(got));
        }
      }
    }
  }
}

TEMPLATE_TEST_CASE("a power hands NaN on, whatever stands beside it", "[power]", float, double) {
  for (const TestType x : {TestType(no_number), -TestType(no_number)}) {
    for (const TestType other : {TestType(0), TestType(1), TestType(-1), TestType(2)}) {
      CHECK(std::isnan(prospect::pow(x, other)));
      CHECK(std::isnan(prospect::pow(other, x)));
      CHECK(std::isnan(pow(prospect::dual<TestType, 1>::variable(x, 0), other).value));
    }
    CHECK(std::isnan(prospect::pow(x, x)));
  }
}

TEMPLATE_TEST_CASE("the slopes of a power at its kinks", "[power]", float, double) {
  using dual1 = prospect::dual<TestType, 1>;
  const auto inf = TestType(infinity);
  const auto in_base = [](TestType x, TestType p) {
    return pow(dual1::variable(x, 0), p).partial[0];
  };
  const auto in_exponent = [](TestType x, TestType p) {
    return pow(x, dual1::variable(p, 0)).partial[0];
  };
  for (const TestType x : {TestType(0), -TestType(0), TestType(3), TestType(-3), inf}) {
    CAPTURE(x);
    CHECK(in_base(x, 0) == 0);
    CHECK(in_base(x, 1) == 1);
    CHECK(pow(dual1::variable(x, 0), 0).partial[0] == 0);
  }
  CHECK(in_base(0, 2) == 0);
  CHECK(in_base(0, TestType(1.5)) == 0);
  CHECK(in_base(0, TestType(0.5)) == inf);
  CHECK(in_base(0, -1) == -inf);
  CHECK(in_base(-2, 3) == 12);
  CHECK(in_base(-2, 2) == -4);
  CHECK(in_base(-2, -1) == TestType(-0.25));
  CHECK(std::isnan(in_base(-2, TestType(0.5))));
  CHECK(in_exponent(0, 2) == 0);
  CHECK(in_exponent(0, 0) == 0);
  CHECK(in_exponent(0, -1) == -inf);
  CHECK(in_exponent(1, 5) == 0);
  CHECK(in_exponent(inf, 1) == inf);
  CHECK(in_exponent(inf, -1) == 0);
  CHECK(std::isnan(in_exponent(-2, 2)));
}

TEST_CASE("an exponent that is a plain number keeps its digits", "[power]") {
  // 0.1F is off by 1.5e-9, which is 0.1 ulp of the result for each power of e in the base.
  CHECK(ulps(prospect::pow(1e-30F, 0.1), std::pow(real{1e-30F}, 0.1L)) <= 0.6);
  CHECK(ulps(pow(prospect::dual<float, 1>::variable(1e30F, 0), 0.1).value,
             std::pow(real{1e30F}, 0.1L)) <= 0.6);
  STATIC_REQUIRE(std::is_same_v<decltype(prospect::pow(1.0F, 0.1)), float>);
  STATIC_REQUIRE(std::is_same_v<decltype(prospect::pow(2, 0.5F)), float>);
}
