// Rows at the edges of what a softmax can take, on the CPU.

#include "cpu/token_edges.hpp"

#include <prospect/cpu/tokens.hpp>

#include "catch.hpp"
#include "cpu/token_back_end.hpp"
#include "random.hpp"

using prospect::bfloat16;
using prospect::float16;
using testing::on_cpu;
using testing::random_source;

TEMPLATE_TEST_CASE("huge logits end, and say which token it is", "[tokens][edges]", float, double,
                   bfloat16, float16) {
  testing::check_huge_logits<TestType>(
      on_cpu, {{}, {.temperature = 0.5}, {.temperature = 0.7}, {.temperature = 2}}, {2, 33, 9001});
  testing::check_huge_ties<TestType>(on_cpu);
}

TEST_CASE("of equal logits the first is the argmax", "[tokens][edges]") {
  testing::check_argmax_of_equals(on_cpu);
}

TEST_CASE("a mean of logits that are all near the end of fp32 is finite", "[tokens][edges]") {
  testing::check_mean_of_lowest(on_cpu);
}

TEST_CASE("a z-loss alone keeps its digits in the target's column", "[tokens][edges]") {
  random_source random{404};
  CAPTURE(random.seed());
  testing::check_z_loss(on_cpu, random);
}

TEST_CASE("a soft cap's slope keeps its digits in the target's column", "[tokens][edges]") {
  testing::check_cap_slope(on_cpu);
}

TEMPLATE_TEST_CASE("impossible tokens", "[tokens][edges]", float, double, bfloat16, float16) {
  testing::check_impossible<TestType>(on_cpu);
}

TEMPLATE_TEST_CASE("a gradient with an lse that is not that of its logits", "", float, bfloat16,
                   float16) {
  testing::check_given_lse<TestType>(on_cpu);
}

TEMPLATE_TEST_CASE("what a large coefficient makes of a vanishing probability", "", float, bfloat16,
                   float16) {
  testing::check_large_coefficients<TestType>(on_cpu);
}
