// frame of README.md, with prospect::dpo{.beta = 0.1}
#include <cstddef>
#include <vector>

#include "frame.hpp"

int main() {
  const std::size_t n = 2;
  // here, up to your sums
  policy_chosen = {-10, -12};
  policy_rejected = {-20, -9};
  reference_chosen = {-11, -12};
  reference_rejected = {-18, -12};
  // here
  // Margins 3 and -3: softplus(-0.3) and softplus(0.3), whose slopes add up to -beta / n.
  REQUIRE(frame::near(metrics.total, (0.554355244 + 0.854355244) / 2));
  REQUIRE(frame::near(d_chosen[0] + d_chosen[1], -0.05));
  REQUIRE(d_rejected[1] == -d_chosen[1]);
}
