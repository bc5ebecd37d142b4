// The program's second file: it includes what the first one does, or the other.
#if defined(SINGLE)
#include "prospect_single.hpp"
#else
#include <prospect/prospect.hpp>
#endif

#include <vector>

prospect::paired_metrics second(const std::vector<float>& chosen,
                                const std::vector<float>& rejected) {
  return prospect::cpu::evaluate<float>(prospect::dpo{.beta = 0.1},
                                        {.policy_chosen = chosen,
                                         .policy_rejected = rejected,
                                         .reference_chosen = rejected,
                                         .reference_rejected = chosen},
                                        {});
}
