// frame of docs/guide/sequences.md, with prospect::token_metrics
#include <prospect/prospect.hpp>

#include <cstdint>
#include <vector>

#include "frame.hpp"

int main() {
  const std::vector<float> log_prob{-1, -2, 0, -1, -3, 0}, old_log_prob{log_prob};
  const std::vector<float> advantage{1, -1};
  const std::vector<std::int32_t> targets{1, 3, -100, 2, 2, -100};
  std::vector<float> d_token(6);
  // here
  // Ratios of 1: a coefficient is -advantage / tokens of its sequence / sequences.
  REQUIRE(d_token[0] == -0.25F && d_token[4] == 0.25F && d_token[2] == 0);
  REQUIRE(metrics.tokens.sum == 4);
}
