// AdamW against the algorithms of its papers in double precision, and the ends of its schedule.
#include "training/adam.hpp"

#include <cmath>
#include <cstddef>
#include <vector>

#include "catch.hpp"

using namespace align;

TEST_CASE(
    "Adam takes the steps of Kingma and Ba's algorithm 1, with Loshchilov and Hutter's decay") {
  const float scale = GENERATE(1.0F, 0.25F);  // of the gradient, where it is clipped
  const double decay = GENERATE(0.0, 0.5);
  adam optimiser(3);
  std::vector<float> parameters{1.0f, -2.0f, 0.5f};
  std::vector<double> wanted(parameters.begin(), parameters.end()), m(3), v(3);
  constexpr double rate = 0.01;
  for (int step = 1; step <= 12; ++step) {
    // Among them gradients that epsilon is not small against.
    const std::vector<float> gradient{static_cast<float>(std::sin(step)), -3e-8f,
                                      static_cast<float>(step % 3)};
    optimiser.update(0, 3, parameters, gradient, scale, rate, decay, step);
    for (std::size_t i = 0; i < 3; ++i) {
      const double g = double{scale} * gradient[i];
      m[i] = 0.9 * m[i] + 0.1 * g;
      v[i] = 0.999 * v[i] + 0.001 * g * g;
      const double m_hat = m[i] / (1 - std::pow(0.9, step));
      const double v_hat = v[i] / (1 - std::pow(0.999, step));
      wanted[i] -= rate * (m_hat / (std::sqrt(v_hat) + 1e-8) + decay * wanted[i]);
      CAPTURE(scale, decay, step, i);
      CHECK_THAT(parameters[i], WithinAbs(wanted[i], 2e-6));
      CHECK_THAT(optimiser.mean[i], WithinRel(m[i], 1e-5) || WithinAbs(m[i], 1e-7));
      CHECK_THAT(optimiser.variance[i], WithinRel(v[i], 1e-4));
    }
  }
}

TEST_CASE("an update touches its own elements and no other") {
  adam optimiser(4);
  std::vector<float> parameters(4, 1.0f);
  const std::vector<float> gradient(4, 1.0f);
  optimiser.update(1, 3, parameters, gradient, 1, 0.1, 0.5, 1);
  CHECK(parameters[0] == 1.0f);
  CHECK(parameters[1] < 1.0f);
  CHECK(parameters[2] < 1.0f);
  CHECK(parameters[3] == 1.0f);
  CHECK(optimiser.mean[0] == 0.0f);
  CHECK(optimiser.variance[3] == 0.0f);
}

TEST_CASE("the rate warms up over a tenth of the steps and falls to a tenth of itself") {
  CHECK_THAT(scheduled(2, 1, 100), WithinRel(0.2, 1e-14));
  CHECK_THAT(scheduled(2, 10, 100), WithinRel(2.0, 1e-14));
  CHECK_THAT(scheduled(2, 55, 100), WithinRel(1.1, 1e-14));  // half way down
  CHECK_THAT(scheduled(2, 100, 100), WithinRel(0.2, 1e-14));
  for (int step = 11; step < 100; ++step)
    CHECK(scheduled(2, step + 1, 100) < scheduled(2, step, 100));
  // No step is without a rate, however few there are.
  CHECK(scheduled(2, 1, 1) == 2);
  CHECK(scheduled(2, 1, 2) == 2);
  CHECK_THAT(scheduled(2, 2, 2), WithinRel(0.2, 1e-14));
}

TEST_CASE("warm-up takes the share of the steps that it is given") {
  CHECK_THAT(scheduled(2, 1, 100, 0.5), WithinRel(0.04, 1e-14));
  CHECK_THAT(scheduled(2, 50, 100, 0.5), WithinRel(2.0, 1e-14));
  CHECK_THAT(scheduled(2, 75, 100, 0.5), WithinRel(1.1, 1e-14));
  CHECK(scheduled(2, 1, 100, 0) == 2);  // none
  CHECK_THAT(scheduled(2, 100, 100, 1), WithinRel(2.0, 1e-14));
}

TEST_CASE("a constant rate stays what it is behind the warm-up") {
  CHECK_THAT(scheduled(2, 5, 100, 0.1, decline::constant), WithinRel(1.0, 1e-14));
  for (const int step : {10, 11, 55, 99, 100}) {
    CHECK_THAT(scheduled(2, step, 100, 0.1, decline::constant), WithinRel(2.0, 1e-14));
  }
}
