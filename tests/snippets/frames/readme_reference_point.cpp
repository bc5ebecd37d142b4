// frame of README.md, with prospect::cpu::mismatched_kl
#include <prospect/prospect.hpp>

#include <cstdint>
#include <vector>

#include "frame.hpp"

int main() {
  const std::vector<double> policy{-10, -20}, reference{-11, -18};
  const std::vector<double> kl_policy{-30, -31}, kl_reference{-31, -32.5};
  const std::vector<std::uint8_t> desirable{1, 0};
  std::vector<double> loss(2);
  const prospect::unpaired_batch<double> batch{
      .policy = policy, .reference = reference, .desirable = desirable};
  const prospect::unpaired_outputs<double> outputs{.loss = loss};
  // here
  REQUIRE(z.z == 1.25);
  REQUIRE(metrics.kl.mean() == 1.25);
  REQUIRE(frame::near(loss[0], 1 / (1 + std::exp(0.1 * (1 - 1.25)))));
  REQUIRE(frame::near(loss[1], 1 / (1 + std::exp(0.1 * (1.25 + 2)))));
}
