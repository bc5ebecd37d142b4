// frame of docs/guide/head.md, with prospect::cpu::head_workspace<float>
// flags: -isystem /usr/include/eigen3
#if __has_include(<Eigen/Core>)
#include <prospect/cpu/head.hpp>

#include <cstdint>
#include <vector>

#include "frame.hpp"

int main() {
  // Every word weighs the same: a probability of 1/4 each.
  const std::int64_t tokens = 2, vocabulary = 4, width = 3;
  const std::vector<float> hidden(6, 1.0F), weight(12, 0.5F), d_token{1, -0.5F};
  const std::vector<std::int32_t> targets{1, 2};
  std::vector<float> log_prob(2), d_hidden(6, NAN), d_weight(12, NAN);
  std::vector<double> lse(2);
  // here
  REQUIRE(frame::near(log_prob[0], -std::log(4.0)));
  REQUIRE(frame::near(lse[1], 1.5 + std::log(4.0)));
  REQUIRE(std::abs(d_hidden[0]) < 1e-6F);                    // 0.5 (1 - 4 / 4)
  REQUIRE(frame::near(d_weight[0], -0.25 * (1 - 0.5)));      // nobody's target
  REQUIRE(frame::near(d_weight[3], 0.75 * 1 + 0.25 * 0.5));  // the first token's
}
#else
int main() { return 77; }  // no Eigen, no head path
#endif
