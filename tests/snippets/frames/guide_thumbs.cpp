// frame of docs/guide/sequences.md, with prospect::unpaired_metrics
#include <prospect/prospect.hpp>

#include <cstdint>
#include <vector>

#include "frame.hpp"

int main() {
  const std::vector<double> policy{-10, -20}, reference{-11, -18};
  const std::vector<double> kl_policy{-30, -31}, kl_reference{-31, -32.5};
  const std::vector<std::uint8_t> desirable{1, 0};
  std::vector<double> d_policy(2);
  // here
  const double up = 1 / (1 + std::exp(0.1 * (1 - 1.25)));
  const double down = 1 / (1 + std::exp(0.1 * (1.25 + 2)));
  REQUIRE(metrics.kl_unclamped.mean() == 1.25);
  REQUIRE(frame::near(metrics.total, (1.33 * up + down) / 2));
  REQUIRE(d_policy[0] < 0 && d_policy[1] > 0);
}
