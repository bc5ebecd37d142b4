// The one file that is compiled as C++20.
#include "alignment.hpp"

#include <prospect/prospect.hpp>

alignment align(const std::vector<float>& chosen, const std::vector<float>& rejected,
                const std::vector<float>& reference_chosen,
                const std::vector<float>& reference_rejected) {
  alignment out;
  out.d_chosen.resize(chosen.size());
  out.d_rejected.resize(rejected.size());
  out.loss = prospect::cpu::evaluate(
                 prospect::dpo{.beta = 0.1},
                 {.policy_chosen = chosen,
                  .policy_rejected = rejected,
                  .reference_chosen = reference_chosen,
                  .reference_rejected = reference_rejected},
                 {.d_policy_chosen = out.d_chosen, .d_policy_rejected = out.d_rejected})
                 .total;
  return out;
}
