// Rows at the edges of what a softmax can take, on the device: the twins of the CPU's.
#include "catch.hpp"
#include "cpu/token_edges.hpp"
#include "cuda/token_cases.hpp"
#include "random.hpp"

using prospect::bfloat16;
using prospect::float16;
using testing::on_cuda;
using testing::random_source;

TEMPLATE_TEST_CASE("huge logits end on the device, and say which token it is", "", float, bfloat16,
                   float16) {
  testing::check_huge_logits<TestType>(on_cuda, {{}, {.temperature = 0.5}}, {2, 33});
  testing::check_huge_ties<TestType>(on_cuda);
}

TEST_CASE("of equal logits the first is the argmax on the device") {
  testing::check_argmax_of_equals(on_cuda);
}

TEST_CASE("a mean of logits that are all near the end of fp32 is finite on the device") {
  testing::check_mean_of_lowest(on_cuda);
}

TEST_CASE("a z-loss alone keeps its digits in the target's column on the device") {
  random_source random{404};
  CAPTURE(random.seed());
  testing::check_z_loss(on_cuda, random);
}

TEST_CASE("a soft cap's slope keeps its digits in the target's column on the device") {
  testing::check_cap_slope(on_cuda);
}

TEMPLATE_TEST_CASE("impossible tokens on the device", "", float, bfloat16, float16) {
  testing::check_impossible<TestType>(on_cuda);
}

TEMPLATE_TEST_CASE("a gradient with an lse that is not that of its logits, on the device", "",
                   float, bfloat16, float16) {
  testing::check_given_lse<TestType>(on_cuda);
}

TEMPLATE_TEST_CASE("what a large coefficient makes of a vanishing probability on the device", "",
                   float, bfloat16, float16) {
  testing::check_large_coefficients<TestType>(on_cuda);
}
