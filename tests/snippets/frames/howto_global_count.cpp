// frame of docs/howto/ranks.md, with prospect::normaliser::over(global_count)
#include <prospect/prospect.hpp>

#include <vector>

#include "frame.hpp"

int main() {
  // Two ranks that hold the same: the sum is twice one's own.
  const auto all_reduce_sum = [](double x) { return 2 * x; };
  const std::vector<double> policy_chosen{-10}, policy_rejected{-20}, reference{-10};
  std::vector<double> d_chosen(1);
  const prospect::dpo loss{};
  const prospect::paired_batch<double> batch{.policy_chosen = policy_chosen,
                                             .policy_rejected = policy_rejected,
                                             .reference_chosen = reference,
                                             .reference_rejected = reference};
  const prospect::paired_outputs<double> outputs{.d_policy_chosen = d_chosen};
  // here
  REQUIRE(frame::near(metrics.total, std::log1p(std::exp(-1.0)) / 2));
  REQUIRE(frame::near(d_chosen[0], -0.1 / (1 + std::exp(1.0)) / 2));
}
