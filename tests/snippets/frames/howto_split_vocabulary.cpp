// frame of docs/howto/ranks.md, with prospect::cpu::vocabulary_partials<float>
#include <prospect/prospect.hpp>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "frame.hpp"

int main() {
  // This is the second of two ranks; the first holds the same logits.
  const std::int64_t rank = 1;
  const std::vector<float> logits{0, 0, 0, 0, 1, 1, 1, 1};
  const prospect::matrix_view<const float> columns{logits.data(), 2, 4};
  const std::vector<std::int32_t> targets{5, 2};
  const auto all_gather = [&](const std::vector<prospect::vocabulary_partial>& mine,
                              std::vector<prospect::vocabulary_partial>& all) {
    prospect::cpu::vocabulary_partials<float>(columns, targets,
                                              prospect::strided_span{all.data(), 2},
                                              {.first_token = 0, .vocabulary = 8});
    std::copy(mine.begin(), mine.end(), all.begin() + 2);
  };
  std::vector<float> log_prob(2);
  std::vector<double> lse(2);
  // here
  REQUIRE(frame::near(log_prob[0], -std::log(8.0)) && frame::near(log_prob[1], -std::log(8.0)));
  REQUIRE(frame::near(lse[1], 1 + std::log(8.0)));
}
