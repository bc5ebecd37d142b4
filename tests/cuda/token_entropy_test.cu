// The coefficient of a row's entropy on the device.
#include <cstdint>
#include <vector>

#include "catch.hpp"
#include "cpu/token_entropy.hpp"
#include "cuda/token_cases.hpp"
#include "random.hpp"

namespace {

using prospect::bfloat16;
using prospect::float16;
using prospect::ignored_target;
using prospect::token_options;
using testing::logits_matrix;
using testing::on_cuda;
using testing::random_source;

}  // namespace

TEMPLATE_TEST_CASE("the coefficient of an entropy keeps the contract on the device", "", float,
                   bfloat16, float16) {
  random_source random{541};
  CAPTURE(random.seed());
  const std::vector<token_options> options{{}, {.temperature = 0.7}, {.soft_cap = 30}};
  for (const testing::row_kind kind : testing::all_row_kinds) {
    for (const std::int64_t vocabulary : {2, 67, 1025, 4099}) {
      const auto& option = options[static_cast<std::size_t>(random.integer(0, 2))];
      CAPTURE(static_cast<int>(kind), vocabulary, option.temperature, option.soft_cap);
      const std::vector<std::int64_t> targets{0, ignored_target, vocabulary - 1,
                                              random.integer(0, vocabulary - 1), vocabulary / 2};
      logits_matrix<TestType> logits{5, vocabulary, random.integer(0, 9), random.integer(0, 7)};
      for (std::int64_t t = 0; t < 5; ++t) {
        fill(logits, t, kind, targets[static_cast<std::size_t>(t)], random);
      }
      testing::check_entropy(on_cuda, logits, targets, option, random);
    }
  }
}

TEST_CASE("golden entropies and their gradients on the device") {
  testing::check_golden_entropy<float>(on_cuda);
}

TEMPLATE_TEST_CASE("entropies of impossible tokens and of no numbers on the device", "", float,
                   bfloat16, float16) {
  testing::check_entropy_of_impossible<TestType>(on_cuda);
}
