// The stable primitives and, through dual numbers, their derivatives: within 2 ulp of the textbook
// function in a wider type, on the whole line. On all 2^32 floats, what is found may be kept
// (record.hpp).

#include <prospect/core/dual.hpp>

#include <concepts>
#include <limits>
#include <string>
#include <tuple>
#include <type_traits>

#include "catch.hpp"
#include "closeness.hpp"
#include "core/float_sweep.hpp"
#include "core/record.hpp"
#include "oracle/scalar.hpp"

namespace {

using oracle::real;
using testing::floats;
using testing::ulps;

template <class F, class Value, class Slope>
struct primitive {
  const char* name;
  F function;
  Value value;  // the textbook
  Slope slope;
};
// clang before 17 does not deduce it from the members.
template <class F, class Value, class Slope>
primitive(const char*, F, Value, Slope) -> primitive<F, Value, Slope>;

template <class R>
constexpr R infinite = std::numeric_limits<R>::infinity();

const auto primitives = std::tuple{
    primitive{"exp", [](auto x) { return prospect::exp(x); },  //
              [](auto x) { return std::exp(x); }, [](auto x) { return std::exp(x); }},
    primitive{"expm1", [](auto x) { return prospect::expm1(x); },
              [](auto x) { return std::expm1(x); }, [](auto x) { return std::exp(x); }},
    primitive{"log", [](auto x) { return prospect::log(x); },  //
              [](auto x) { return std::log(x); }, [](auto x) { return 1 / x; }},
    primitive{"log1p", [](auto x) { return prospect::log1p(x); },
              [](auto x) { return std::log1p(x); }, [](auto x) { return 1 / (1 + x); }},
    primitive{"sigmoid", [](auto x) { return prospect::sigmoid(x); },
              [](auto x) { return oracle::sigmoid(x); },
              [](auto x) { return oracle::sigmoid_slope(x); }},
    primitive{"softplus", [](auto x) { return prospect::softplus(x); },
              [](auto x) { return oracle::softplus(x); },
              [](auto x) { return oracle::sigmoid(x); }},
    primitive{"log_sigmoid", [](auto x) { return prospect::log_sigmoid(x); },
              [](auto x) { return oracle::log_sigmoid(x); },
              [](auto x) { return oracle::sigmoid(-x); }},
    // From the left, which is where log-probabilities are.
    primitive{"log1mexp", [](auto x) { return prospect::log1mexp(x); },
              [](auto x) { return oracle::log1mexp(x); },
              [](auto x) { return x == 0 ? -infinite<decltype(x)> : -1 / std::expm1(-x); }},
    primitive{"tanh", [](auto x) { return prospect::tanh(x); }, [](auto x) { return std::tanh(x); },
              [](auto x) { return 1 / oracle::square(std::cosh(x)); }},
    primitive{
        "sqrt", [](auto x) { return prospect::sqrt(x); }, [](auto x) { return std::sqrt(x); },
        [](auto x) { return x == 0 ? infinite<decltype(x)> : decltype(x)(0.5) / std::sqrt(x); }},
    primitive{"abs", [](auto x) { return prospect::abs(x); }, [](auto x) { return std::abs(x); },
              [](auto x) {
                return decltype(x)(x > 0 ? 1 : x < 0 ? -1 : 0);
              }},
    primitive{"relu", [](auto x) { return prospect::relu(x); },
              [](auto x) { return x < 0 ? 0 : x; },
              [](auto x) { return decltype(x)(x > 0 ? 1 : 0); }},
    primitive{"square", [](auto x) { return prospect::square(x); },
              [](auto x) { return oracle::square(x); }, [](auto x) { return 2 * x; }},
    primitive{"clamp",
              [](auto x) {
                using bound = prospect::scalar_of_t<decltype(x)>;
                return prospect::clamp(x, bound(-1), bound(1.5));
              },
              [](auto x) { return x < -1                 ? -1
                                  : x > decltype(x)(1.5) ? decltype(x)(1.5)
                                                         : x; },
              [](auto x) { return decltype(x)(x < -1 || x > decltype(x)(1.5) ? 0 : 1); }},
};

template <class Visit>
void for_each_primitive(Visit&& visit) {
  std::apply([&](const auto&... p) { (visit(p), ...); }, primitives);
}

/// The larger of the errors of value and slope at x. Where the function is not defined, its value
/// has to be NaN and its slope is free.
template <class R, class Primitive>
double error_at(const Primitive& p, R x) {
  const auto y = p.function(prospect::dual<R, 1>::variable(x, 0));
  const R plain = p.function(x);
  const bool same = plain == y.value || (std::isnan(plain) && std::isnan(y.value));
  if (!same) return std::numeric_limits<double>::infinity();
  using wider = std::conditional_t<std::same_as<R, float>, double, real>;
  const wider want = p.value(static_cast<wider>(x));
  const double value_error = ulps(y.value, want);
  if (std::isnan(want)) return value_error;
  return std::max(value_error, ulps(y.partial[0], p.slope(static_cast<wider>(x))));
}

void check_all_primitives(floats which) {
  for_each_primitive([&](const auto& p) {
    const auto measure = [&] {
      return testing::worst_over(which, [&](float x) { return error_at(p, x); });
    };
    const auto worst =
        which == floats::all ? testing::recorded("primitive", p.name, measure) : measure();
    CAPTURE(p.name, worst.at);
    CHECK(worst.error <= 2);
  });
}

/// Doubles of every exponent and both signs.
template <class Visit>
void for_each_dense_double(Visit&& visit) {
  testing::random_source random{7};
  for (std::uint64_t block = 0; block < 4096; ++block) {
    const std::uint64_t start = block << 52;
    visit(std::bit_cast<double>(start));
    // Most functions live where the exponent is small.
    const bool busy = (block & 2047) > 1023 - 60 && (block & 2047) < 1023 + 12;
    for (int k = 0; k < (busy ? 300 : 4); ++k) {
      visit(std::bit_cast<double>(start | (random.bits() >> 12)));
    }
  }
}

}  // namespace

TEST_CASE("every primitive and its derivative is within 2 ulp in fp32, densely sampled", "[math]") {
  check_all_primitives(floats::dense);
}

TEST_CASE("every primitive and its derivative is within 2 ulp on all 2^32 floats",
          "[math][.exhaustive]") {
  check_all_primitives(floats::all);
}

TEST_CASE("every primitive and its derivative is within 2 ulp in fp64", "[math]") {
  for_each_primitive([](const auto& p) {
    double worst = 0, at = 0;
    for_each_dense_double([&](double x) {
      const double error = error_at(p, x);
      if (error > worst) worst = error, at = x;
    });
    CAPTURE(p.name, at);
    CHECK(worst <= 2);
  });
}

TEST_CASE("every primitive hands NaN on", "[math]") {
  for_each_primitive([](const auto& p) {
    CAPTURE(p.name);
    const float nan = std::numeric_limits<float>::quiet_NaN();
    CHECK(std::isnan(p.function(nan)));
    CHECK(std::isnan(p.function(-nan)));
    CHECK(std::isnan(p.function(prospect::dual<float, 1>::variable(nan, 0)).value));
  });
}

TEST_CASE("primitives saturate", "[math]") {
  const float inf = std::numeric_limits<float>::infinity();
  const auto slope = [](auto function, float x) {
    return function(prospect::dual<float, 1>::variable(x, 0)).partial[0];
  };
  for (const float x : {110.0F, 1e4F, 1e30F, inf}) {
    CAPTURE(x);
    CHECK(prospect::sigmoid(x) == 1.0F);
    CHECK(prospect::sigmoid(-x) == 0.0F);
    CHECK(prospect::softplus(x) == x);
    CHECK(prospect::softplus(-x) == 0.0F);
    CHECK(prospect::log_sigmoid(-x) == -x);
    CHECK(prospect::log1mexp(-x) == 0.0F);
    CHECK(prospect::tanh(x) == 1.0F);
    CHECK(prospect::tanh(-x) == -1.0F);
    CHECK(slope([](auto y) { return prospect::tanh(y); }, x) == 0.0F);
    CHECK(slope([](auto y) { return prospect::tanh(y); }, -x) == 0.0F);
    CHECK(slope([](auto y) { return prospect::sigmoid(y); }, x) == 0.0F);
    CHECK(slope([](auto y) { return prospect::sigmoid(y); }, -x) == 0.0F);
    CHECK(slope([](auto y) { return prospect::softplus(y); }, x) == 1.0F);
    CHECK(slope([](auto y) { return prospect::softplus(y); }, -x) == 0.0F);
  }
}

TEST_CASE("zeros keep their signs where the function does", "[math]") {
  CHECK(std::signbit(prospect::tanh(-0.0F)));
  CHECK_FALSE(std::signbit(prospect::tanh(0.0F)));
  CHECK(std::signbit(prospect::sqrt(-0.0F)));
  CHECK_FALSE(std::signbit(prospect::abs(-0.0F)));
  CHECK_FALSE(std::signbit(prospect::abs(-0.0)));
  CHECK(prospect::tanh(-0x1p-149F) == -0x1p-149F);
  CHECK(prospect::abs(-0x1p-149F) == 0x1p-149F);
}

TEST_CASE("the left tail of sigmoid is not one minus the right tail", "[math]") {
  // 1 - sigmoid(x) is exactly 0 in fp32 from x = 17 on; this keeps 24 bits until e^-x underflows.
  for (float x = 17; x < 87; x += 0.37F) {
    CAPTURE(x);
    CHECK(1.0F - prospect::sigmoid(x) <= 6e-8F);
    CHECK(ulps(prospect::sigmoid(-x), oracle::sigmoid(-static_cast<real>(x))) <= 2);
    CHECK(prospect::sigmoid(prospect::dual<float, 1>::variable(x, 0)).partial[0] > 0);
  }
}

TEST_CASE("the sigmoid's slope is exactly even", "[math]") {
  const auto worst = testing::worst_over(floats::dense, [](float x) {
    return x == x && prospect::sigmoid_slope(x) != prospect::sigmoid_slope(-x) ? 1.0 : 0.0;
  });
  CAPTURE(worst.at);
  CHECK(worst.error == 0);
}
