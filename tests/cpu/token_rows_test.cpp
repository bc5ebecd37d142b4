// Options of single rows on the CPU: masks, temperatures, padding, one coefficient out of place.

#include "cpu/token_rows.hpp"

#include <prospect/cpu/tokens.hpp>

#include <cstdint>
#include <vector>

#include "catch.hpp"
#include "cpu/token_back_end.hpp"
#include "random.hpp"

using prospect::bfloat16;
using prospect::float16;
using prospect::ignored_target;
using testing::on_cpu;
using testing::random_source;

TEMPLATE_TEST_CASE("a mask is a target of -100, to the bit", "[tokens][rows]", float, double,
                   bfloat16, float16) {
  random_source random{801};
  CAPTURE(random.seed());
  for (const std::int64_t vocabulary : {5, 67, 2051}) {
    testing::check_masks<TestType>(on_cpu, vocabulary, random);
  }
}

TEMPLATE_TEST_CASE("a row's own temperature gives the bits of a batch of that temperature",
                   "[tokens][rows]", float, double, bfloat16, float16) {
  random_source random{802};
  CAPTURE(random.seed());
  for (const auto& options : {testing::token_options{}, {.temperature = 2}, {.soft_cap = 30}}) {
    for (const std::int64_t vocabulary : {2, 67, 2051}) {
      testing::check_temperatures<TestType>(on_cpu, vocabulary, options, random);
    }
  }
}

TEMPLATE_TEST_CASE("padding becomes 0 where that is asked for, and stays where it is not",
                   "[tokens][rows]", float, double, bfloat16, float16) {
  random_source random{803};
  CAPTURE(random.seed());
  testing::check_padding<TestType>(on_cpu, 5, 3, random);
  testing::check_padding<TestType>(on_cpu, 1, 63, random);
  testing::check_padding<TestType>(on_cpu, 2051, 7, random);
  testing::check_padding<TestType>(on_cpu, 67, 0, random);
}

TEST_CASE("a host that multiplies over the padding trains on 0, not on logits", "[tokens][rows]") {
  // V = 5 in rows of 8: the right gradient by hand, whose magnitudes sum to 2 (1 - p) = 1.6.
  std::vector<float> x{0, 0, 0, 0, 0, 2005, 2005, 2005};
  const std::vector<std::int32_t> targets{2};
  std::vector<float> log_prob(1);
  std::vector<double> lse(1);
  const std::vector<float> one{1};
  const prospect::matrix_view<float> logits{x.data(), 1, 5, 8};
  const prospect::token_options options{.zero_padding = true};
  prospect::cpu::token_log_probs<float>(logits, targets, {.log_prob = log_prob, .lse = lse},
                                        options);
  prospect::cpu::logits_gradient<float>(logits, targets, log_prob, lse, one, options);
  for (std::size_t j = 0; j < 5; ++j) CHECK(testing::near(x[j], j == 2 ? 0.8L : -0.2L, 1e-6L));
  CHECK(x[5] == 0);
  CHECK(x[6] == 0);
  CHECK(x[7] == 0);
}

TEMPLATE_TEST_CASE("one coefficient out of place", "[tokens][rows]", float, double, bfloat16,
                   float16) {
  random_source random{804};
  CAPTURE(random.seed());
  for (const std::int64_t vocabulary : {2, 67, 2051}) {
    testing::check_one_coefficient<TestType>(on_cpu, vocabulary, random);
  }
}

TEST_CASE("padding of rows without a column becomes 0", "[tokens][rows]") {
  std::vector<float> x{7, 7, 7, 7, 7};
  const std::vector<std::int32_t> targets{ignored_target, ignored_target};
  prospect::cpu::token_log_probs_and_gradient<float>({x.data(), 2, 0, 2}, targets, {},
                                                     {.zero_padding = true});
  CHECK(x == std::vector<float>{0, 0, 0, 0, 7});
}

TEST_CASE("a matrix of one row has no pitch", "[tokens][rows]") {
  std::vector<float> x{0, 0, 0, 0, 7};
  const std::vector<std::int32_t> targets{1};
  std::vector<float> log_prob(1);
  for (const std::int64_t pitch : {std::int64_t{1}, std::int64_t{0}, std::int64_t{-3},
                                   std::numeric_limits<std::int64_t>::max()}) {
    CAPTURE(pitch);
    prospect::cpu::token_log_probs<float>({x.data(), 1, 4, pitch}, targets, {.log_prob = log_prob});
    CHECK(testing::near(log_prob[0], -std::log(4.0L), 1e-6L));
  }
  // Nor padding, where the pitch is below the columns.
  prospect::cpu::token_log_probs_and_gradient<float>({x.data(), 1, 4, 1}, targets, {},
                                                     {.zero_padding = true});
  CHECK(x == std::vector<float>{-0.25F, 0.75F, -0.25F, -0.25F, 7});
}

TEST_CASE("masked partials combine to nothing", "[tokens][rows]") {
  const std::vector<prospect::vocabulary_partial> parts(
      2, {.exponentials = 3, .tokens = 4, .targets = 1, .target = 0});
  const std::vector<std::int64_t> targets{0, 0};
  const std::vector<std::int32_t> mask{0, -1};
  std::vector<double> log_prob(2, 7);
  prospect::cpu::token_log_probs<double>({parts.data(), 1, 2}, targets, {.log_prob = log_prob},
                                         mask);
  CHECK(log_prob[0] == 0);
  CHECK(testing::near(log_prob[1], -std::log(4.0L), 1e-15L));
}
