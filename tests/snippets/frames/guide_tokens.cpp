// frame of docs/guide/tokens.md, with shift_targets(labels
#include <prospect/prospect.hpp>

#include <cstdint>
#include <vector>

#include "frame.hpp"

int main() {
  std::vector<float> logits(6 * 8, NAN);  // what lies between columns and pitch is never read
  for (int t = 0; t < 6; ++t) {
    for (int v = 0; v < 4; ++v) logits[static_cast<std::size_t>(8 * t + v)] = 0;
  }
  // here
  REQUIRE((targets == std::vector<std::int32_t>{1, 3, -100, 2, 2, -100}));
  REQUIRE(frame::near(log_prob[1], -std::log(4.0)) && log_prob[2] == 0);
  REQUIRE(frame::near(lse[4], std::log(4.0)));
  REQUIRE(frame::near(sums[0], -2 * std::log(4.0)) && tokens[1] == 2);
}
