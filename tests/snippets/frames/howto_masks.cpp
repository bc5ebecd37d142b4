// frame of docs/howto/masks.md, with const std::vector<float> mask
#include <prospect/prospect.hpp>

#include <cstdint>
#include <vector>

#include "frame.hpp"

int main() {
  std::vector<float> logits(4 * 8);
  for (std::size_t j = 16; j < 24; ++j) logits[j] = NAN;  // the row that the mask leaves out
  const prospect::matrix_view<const float> view{logits.data(), 4, 8};
  const auto layout = prospect::sequence_layout::padded(1, 4);
  std::vector<float> log_prob(4);
  std::vector<double> lse(4), sums(1);
  std::vector<std::int32_t> tokens(1);
  // here
  REQUIRE(tokens[0] == 2 && frame::near(sums[0], -2 * std::log(8.0)) && log_prob[2] == 0);
}
