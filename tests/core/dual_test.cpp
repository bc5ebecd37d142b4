// Dual numbers: the algebra against central differences, constants that stay constants, plain
// numbers mixed in, comparisons by value.

#include <prospect/core/dual.hpp>

#include <functional>
#include <limits>
#include <type_traits>

#include "catch.hpp"
#include "closeness.hpp"
#include "random.hpp"
#include "special_numbers.hpp"

namespace {

using double_dual1 = prospect::dual<double, 1>;
using double_dual2 = prospect::dual<double, 2>;
using testing::near;

using testing::infinity;

/// Checks the partials of a two-argument function against central differences in long double.
template <class F>
void check_gradient(const char* name, const F& f, double x, double y) {
  const double_dual2 got = f(double_dual2::variable(x, 0), double_dual2::variable(y, 1));
  const long double h = 1e-6L, u = x, v = y;
  CAPTURE(name, x, y);
  CHECK(near(got.value, f(u, v), 1e-14L, 1e-14L));
  CHECK(near(got.partial[0], (f(u + h, v) - f(u - h, v)) / (2 * h), 1e-8L, 1e-8L));
  CHECK(near(got.partial[1], (f(u, v + h) - f(u, v - h)) / (2 * h), 1e-8L, 1e-8L));
}

}  // namespace

TEST_CASE("dual arithmetic differentiates", "[dual]") {
  testing::random_source random{11};
  CAPTURE(random.seed());
  for (int trial = 0; trial < 50; ++trial) {
    const double x = random.uniform(-3, 3), y = random.uniform(0.5, 3);
    check_gradient(
        "sum", [](auto a, auto b) { return a + b; }, x, y);
    check_gradient(
        "difference", [](auto a, auto b) { return a - b; }, x, y);
    check_gradient(
        "product", [](auto a, auto b) { return a * b; }, x, y);
    check_gradient(
        "quotient", [](auto a, auto b) { return a / b; }, x, y);
    check_gradient(
        "negation", [](auto a, auto b) { return -(a * b) - -b; }, x, y);
    check_gradient(
        "mixed sums", [](auto a, auto b) { return (2 + a) + (b - 3) + (1.5F - a * b); }, x, y);
    check_gradient(
        "mixed products", [](auto a, auto b) { return (2 * a) / 0.25 * b + 3 / b; }, x, y);
    check_gradient(
        "compound",
        [](auto a, auto b) {
          auto c = a;
          c *= b;
          c += a;
          c /= b;
          c -= b;
          return c;
        },
        x, y);
    check_gradient(
        "composition",
        [](auto a, auto b) {
          using namespace prospect;
          return tanh(a * b) * pow(b, 1.7) + pow(b, a) * sqrt(b) + pow(2, a) * abs(a - 4) +
                 log(softplus(a) + exp(b)) * log_sigmoid(a - b) + square(sigmoid(b)) +
                 expm1(a) * log1p(b);
        },
        x, y);
  }
}

TEST_CASE("a plain number is a constant of the dual's own precision", "[dual]") {
  using dual_float = prospect::dual<float, 1>;
  const dual_float x = dual_float::variable(3.0F, 0);
  STATIC_REQUIRE(std::is_same_v<decltype(0.1 * x), dual_float>);
  STATIC_REQUIRE(std::is_same_v<decltype(x - 1), dual_float>);
  CHECK((0.1 * x).value == 0.1F * 3.0F);
  CHECK((0.1 * x).partial[0] == 0.1F);
  CHECK((1 / x).partial[0] == -(1.0F / 3.0F) / 3.0F);
  CHECK(dual_float(2).partial[0] == 0.0F);
  CHECK(dual_float(0.1).value == 0.1F);
}

TEST_CASE("a variable carries its own partial only", "[dual]") {
  const double_dual2 x = double_dual2::variable(4, 1);
  CHECK(x.value == 4);
  CHECK(x.partial[0] == 0);
  CHECK(x.partial[1] == 1);
}

TEST_CASE("a constant stays one where the slope is infinite", "[dual]") {
  // 0 * inf would be NaN and would spoil the gradient of everything it is added to.
  CHECK(prospect::log(double_dual1{0.0}).value == -infinity);
  CHECK(prospect::log(double_dual1{0.0}).partial[0] == 0);
  CHECK(prospect::log1p(double_dual1{-1.0}).partial[0] == 0);
  CHECK(prospect::log1mexp(double_dual1{0.0}).partial[0] == 0);
  CHECK(prospect::exp(double_dual1{infinity}).partial[0] == 0);
  CHECK(prospect::log(double_dual1::variable(0, 0)).partial[0] == infinity);

  const double_dual2 x = double_dual2::variable(0, 1);
  CHECK(prospect::log(x).partial[0] == 0);
  CHECK(prospect::log(x).partial[1] == infinity);
}

TEST_CASE("duals compare by value", "[dual]") {
  const double_dual1 low = double_dual1::variable(1, 0), high{2.0}, same{1.0};
  CHECK(low < high);
  CHECK(low <= same);
  CHECK(high > low);
  CHECK(high >= low);
  CHECK(low == same);
  CHECK(low != high);
  CHECK(low < 1.5);
  CHECK(0 < low);
  const double_dual1 nan{std::numeric_limits<double>::quiet_NaN()};
  CHECK_FALSE(nan < low);
  CHECK_FALSE(nan >= low);
  CHECK_FALSE(nan == nan);
}

TEST_CASE("kinks take the side their headers name", "[dual]") {
  const auto slope = [](auto function, double x) {
    return function(double_dual1::variable(x, 0)).partial[0];
  };
  const auto relu = [](auto x) { return prospect::relu(x); };
  const auto clamp = [](auto x) { return prospect::clamp(x, -1, 2); };
  CHECK(slope(relu, 0) == 0);
  CHECK(slope(relu, -0.0) == 0);
  CHECK(slope(relu, 5e-324) == 1);
  const auto abs = [](auto x) { return prospect::abs(x); };
  CHECK(slope(abs, 0) == 0);
  CHECK(slope(abs, -0.0) == 0);
  CHECK(slope(abs, 5e-324) == 1);
  CHECK(slope(abs, -5e-324) == -1);
  const auto sqrt = [](auto x) { return prospect::sqrt(x); };
  CHECK(slope(sqrt, 0) == infinity);
  CHECK(slope(sqrt, -0.0) == infinity);
  CHECK(slope(sqrt, infinity) == 0);
  CHECK(slope(clamp, -1) == 1);
  CHECK(slope(clamp, 2) == 1);
  CHECK(slope(clamp, std::nextafter(2, 3)) == 0);
  CHECK(slope(clamp, std::nextafter(-1, -2)) == 0);
}

TEST_CASE("the plain number inside a type", "[dual]") {
  STATIC_REQUIRE(std::is_same_v<prospect::scalar_of_t<double_dual2>, double>);
  STATIC_REQUIRE(std::is_same_v<prospect::scalar_of_t<float>, float>);
  STATIC_REQUIRE(std::is_trivially_copyable_v<double_dual2>);
}
