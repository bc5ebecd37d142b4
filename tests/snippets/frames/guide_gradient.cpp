// frame of docs/guide/gradient.md, with prospect::cpu::spread<float>
#include <prospect/prospect.hpp>

#include <cstdint>
#include <vector>

#include "frame.hpp"

int main() {
  std::vector<float> logits(6 * 8);
  const auto layout = prospect::sequence_layout::padded(2, 3);
  const std::vector<std::int32_t> targets{1, 3, -100, 2, 2, -100};
  const std::vector<float> log_prob(6, std::log(0.25F));
  const std::vector<double> lse(6, std::log(4.0));
  const std::vector<double> d_policy{-1, 0.5};
  // here
  REQUIRE(frame::near(logits[1], -0.75) && frame::near(logits[0], 0.25));
  REQUIRE(logits[2 * 8] == 0);
  REQUIRE(frame::near(logits[3 * 8 + 2], 0.375));
}
