// frame of docs/howto/padding.md, with .zero_padding = true
#include <prospect/prospect.hpp>

#include <cstdint>
#include <vector>

#include "frame.hpp"

int main() {
  std::vector<float> logits(8, 0.0F);
  logits[6] = 100;
  const prospect::matrix_view<float> view{logits.data(), 1, 4, 8};
  const std::vector<std::int32_t> targets{1};
  const std::vector<float> log_prob{std::log(0.25F)}, d_token{1};
  const std::vector<double> lse{std::log(4.0)};
  // here
  REQUIRE(frame::near(logits[1], 0.75) && logits[6] == 0);
}
