// frame of README.md, with struct exponential
#include <prospect/prospect.hpp>

#include <vector>

#include "frame.hpp"

// here

int main() {
  const std::vector<double> policy_chosen{-10}, policy_rejected{-20}, reference(1, -15.0);
  std::vector<double> d_chosen(1);
  const auto metrics = prospect::cpu::evaluate<double>(exponential{},
                                                       {.policy_chosen = policy_chosen,
                                                        .policy_rejected = policy_rejected,
                                                        .reference_chosen = reference,
                                                        .reference_rejected = reference},
                                                       {.d_policy_chosen = d_chosen});
  REQUIRE(frame::near(metrics.total, std::exp(-1.0)));
  REQUIRE(frame::near(d_chosen[0], -0.1 * std::exp(-1.0)));
}
