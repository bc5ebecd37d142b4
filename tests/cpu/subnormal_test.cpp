// Gradients too small for a normal number: none is written, because a processor takes a hundred
// cycles for each; what is a normal number keeps its bound, fp16's subnormal numbers included.
#include <prospect/cpu/tokens.hpp>

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "catch.hpp"
#include "cpu/contract.hpp"
#include "cpu/logits.hpp"
#include "oracle/softmax.hpp"
#include "random.hpp"

namespace {

using oracle::real;
using prospect::bfloat16;
using prospect::compute_t;
using prospect::float16;
using testing::logits_matrix;

constexpr std::int64_t likely_token = 7;

/// One row: its target highest, the others evenly from `nearest` to `farthest` nats below it.
template <class S>
logits_matrix<S> row_below(double nearest, double farthest) {
  constexpr std::int64_t vocabulary = 1003;
  logits_matrix<S> logits{1, vocabulary};
  testing::random_source random{2026};
  logits.fill_row(0, [&](std::int64_t j) {
    return j == likely_token ? 0.0 : -random.uniform(nearest, farthest);
  });
  return logits;
}

/// What is wrong with a gradient that should be d times `want`'s.
template <class S>
struct faults {
  int subnormal = 0, lost = 0, wrong = 0;

  faults(logits_matrix<S>& got, double d, const oracle::softmax_row& want) {
    using R = compute_t<S>;
    for (std::int64_t j = 0; j < got.columns(); ++j) {
      const R x = prospect::load(got.at(0, j));
      const real right = d * want.gradient[static_cast<std::size_t>(j)];
      const bool counts = std::abs(right) > testing::negligible<S> * (1 + 1e-5L) &&
                          std::abs(right) > testing::smallest<S>;
      subnormal += x != 0 && std::abs(x) < std::numeric_limits<R>::min() ? 1 : 0;
      lost += counts && x == 0 ? 1 : 0;
      wrong += testing::gradient_in_contract(got.at(0, j), right) ? 0 : 1;
    }
  }
};

}  // namespace

TEMPLATE_TEST_CASE("a gradient below the smallest normal number is 0", "[tokens][subnormal]", float,
                   bfloat16, float16) {
  using R = compute_t<TestType>;
  const std::vector<int> targets{likely_token};
  // 1e-30 and 1e-37: whatever is not the target's is small; 85 to 98 nats: 1e-37 to 1e-43 of d.
  const double far = GENERATE(98.0, 60.0, 30.0);
  const double d = GENERATE(1.0, -1e-3, 1e-30, 1e-37, 1e20);
  const double temperature = GENERATE(1.0, 0.7);
  CAPTURE(far, d, temperature);
  auto logits = row_below<TestType>(far / 2, far);
  const auto want = oracle::softmax(logits.row(0), likely_token, {.temperature = temperature});
  const prospect::token_options options{.temperature = temperature};
  std::vector<R> log_prob(1);
  std::vector<double> lse(1);
  const std::vector<R> d_token{static_cast<R>(d)};
  const double rounded = d_token[0];

  auto deferred = logits;
  prospect::cpu::token_log_probs<TestType>(logits.view(), targets,
                                           {.log_prob = log_prob, .lse = lse}, options);
  prospect::cpu::logits_gradient<TestType>(logits.view(), targets, log_prob, lse, d_token, options);
  const faults<TestType> found{logits, rounded, want};
  CHECK(found.subnormal <= 1);  // one may stand at the very edge
  CHECK(found.lost == 0);
  CHECK(found.wrong == 0);

  prospect::cpu::token_log_probs_and_gradient<TestType>(
      deferred.view(), targets, {.log_prob = log_prob, .lse = lse}, options);
  const faults<TestType> unscaled{deferred, 1, want};
  CHECK(unscaled.subnormal <= 1);
  CHECK(unscaled.lost == 0);
  CHECK(unscaled.wrong == 0);
}

TEMPLATE_TEST_CASE("rows are scaled without subnormal numbers", "[tokens][subnormal]", float,
                   bfloat16) {
  const float factor = GENERATE(1e-3F, -1e-30F, 1e-38F);
  CAPTURE(factor);
  logits_matrix<TestType> rows{1, 259};
  rows.fill_row(0, [](std::int64_t j) {
    return std::ldexp(j % 2 == 0 ? 1.0 : -1.5, -static_cast<int>(j) / 2);
  });
  const auto before = rows.row(0);
  const std::vector<float> factors{factor};
  prospect::cpu::scale_rows<TestType>(rows.view(), factors);
  for (std::int64_t j = 0; j < rows.columns(); ++j) {
    const float x = prospect::load(rows.at(0, j));
    const real right = before[static_cast<std::size_t>(j)] * factor;
    CAPTURE(j, x);
    REQUIRE((x == 0 || std::abs(x) >= std::numeric_limits<float>::min()));
    if (std::abs(right) >= std::numeric_limits<float>::min()) {
      REQUIRE(testing::gradient_in_contract(rows.at(0, j), right));
    }
  }
}
