// frame of docs/howto/deferred.md, with token_log_probs_and_gradient<float>(view
#include <prospect/prospect.hpp>

#include <cstdint>
#include <vector>

#include "frame.hpp"

int main() {
  std::vector<float> logits(4 * 8);
  const std::vector<std::int32_t> targets{1, 2, 3, -100};
  const auto layout = prospect::sequence_layout::padded(2, 2);
  const std::vector<double> d_policy{-1, 0.5};
  std::vector<float> log_prob(4), d_token(4);
  // here
  REQUIRE(frame::near(log_prob[2], -std::log(8.0)));
  REQUIRE(frame::near(logits[1], -0.875) && frame::near(logits[16], -0.0625) && logits[24] == 0);
}
