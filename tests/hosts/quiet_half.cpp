// The half of a program that is built without exceptions.
#include <prospect/class_weights.hpp>
#include <prospect/cpu/sequences.hpp>
#include <prospect/executor.hpp>
#include <prospect/losses/paired/dpo.hpp>

#include <cstdlib>
#include <vector>

void prospect::refused(const char*) { std::_Exit(3); }

std::int64_t quiet_sum(prospect::thread_pool& pool) {
  std::atomic<std::int64_t> sum{0};
  pool.run(1000, [&](std::int64_t i) { sum += i; });
  return sum;
}

double quiet_bound() { return prospect::propose_class_weights(2, 1).bound; }

double quiet_loss(const std::vector<float>& row) {
  return prospect::cpu::evaluate<float>(prospect::dpo{},
                                        {.policy_chosen = row,
                                         .policy_rejected = row,
                                         .reference_chosen = row,
                                         .reference_rejected = row},
                                        {})
      .total;
}
