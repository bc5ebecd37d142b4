// The token kernels under --use_fast_math, and the sequence kernels' sight of what is no number:
// the contract holds but for results below 2^-126, which are 0.
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "catch.hpp"
#include "cpu/token_entropy.hpp"
#include "cuda/sequence_cases.hpp"
#include "cuda/token_cases.hpp"
#include "random.hpp"

namespace {

using prospect::bfloat16;
using testing::logits_matrix;
using testing::random_source;

}  // namespace

TEMPLATE_TEST_CASE("logits keep their contract under --use_fast_math", "", float, bfloat16) {
  random_source random{511};
  CAPTURE(random.seed());
  for (const prospect::token_options& options :
       {prospect::token_options{}, {.temperature = 0.7}, {.soft_cap = 30}}) {
    for (const testing::row_kind kind : {testing::row_kind::ordinary, testing::row_kind::rising}) {
      const std::int64_t vocabulary = 1025;
      const std::vector<std::int64_t> targets{0, 700, vocabulary - 1};
      logits_matrix<TestType> logits{3, vocabulary};
      for (std::int64_t t = 0; t < 3; ++t) {
        fill(logits, t, kind, targets[static_cast<std::size_t>(t)], random);
      }
      testing::check_entropy(testing::on_cuda, logits, targets, options, random);
      testing::check_everything(testing::on_cuda, logits, targets, options, random);
    }
  }
}

TEST_CASE("a large coefficient meets all digits of a small probability") {
  // e^-80 2^20 and e^-100 2^60, of which the second stands below the normal numbers on its way.
  logits_matrix<float> logits{2, 2};
  const std::vector<std::int64_t> targets{0, 0};
  for (std::int64_t t = 0; t < 2; ++t) {
    logits.at(t, 0) = 0;
    logits.at(t, 1) = t == 0 ? -80.0F : -100.0F;
  }
  const auto pass = testing::on_cuda.forward(logits, targets, {});
  const std::vector<float> a{0x1p20F, 0x1p60F};
  logits_matrix<float> gradient{2, 2};
  testing::on_cuda.gradient(logits, gradient, targets, pass, a, a, {});
  CHECK(testing::ulps(gradient.at(0, 1), 0x1p20L * std::exp(-80.0L), 0) <= 8);
  CHECK(testing::ulps(gradient.at(1, 1), 0x1p60L * std::exp(-100.0L), 0) <= 8);
}

TEST_CASE("what is no number is found under --use_fast_math") {
  random_source random{512};
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    testing::paired_case<float> c{random, 9, false};
    c.policy_rejected[4] = bad;
    const auto m = testing::sequences_on_cuda(prospect::dpo{}, c);
    CHECK(m.nonfinite.sum == 1);
    CHECK(m.first_nonfinite == 4);
  }
}
