// frame of docs/guide/sequences.md, with prospect::paired_metrics
#include <prospect/prospect.hpp>

#include <cstdint>
#include <vector>

#include "frame.hpp"

int main() {
  const std::vector<double> policy_sums{-10, -20}, reference_sums{-11, -18};
  std::vector<double> coefficients(2);
  // here
  REQUIRE(frame::near(metrics.total, std::log1p(std::exp(-0.3))));
  REQUIRE(frame::near(coefficients[0], -0.1 / (1 + std::exp(0.3))));
  REQUIRE(coefficients[1] == -coefficients[0]);
}
