// The C API on rewards.
#include "tokens.hpp"

#include <prospect/cpu/rewards.hpp>

#include <vector>

namespace pk = prospect::kernels;

namespace {

prospect::cpu::grpo_scaling scaling_of(const prospect_advantages& a) {
  using prospect::cpu::scale_rewards;
  prospect::cpu::grpo_scaling scaling{.unbiased = a.population == 0};
  if (a.epsilon != 0) scaling.epsilon = a.epsilon;
  switch (a.scale) {
    case PROSPECT_SCALE_GROUP:
      return scaling;
    case PROSPECT_SCALE_BATCH:
      scaling.by = scale_rewards::batch;
      return scaling;
    case PROSPECT_SCALE_NONE:
      scaling.by = scale_rewards::none;
      return scaling;
    default:
      pk::fail(PROSPECT_UNSUPPORTED, "scale is unknown");
  }
}

prospect::cpu::unrewarded write_advantages(const prospect_advantages& a) {
  const prospect::cpu::grpo_scaling scaling = scaling_of(a);
  const prospect::sequence_layout groups = pk::layout_of(a.groups);
  const auto out = pk::real_row<prospect::any_row>("advantages", a.advantages);
  std::vector<prospect::const_any_row> rewards;
  for (std::int64_t k = 0; k < a.components; ++k) {
    rewards.push_back(
        pk::real_row<prospect::const_any_row>("rewards", (&pk::require(a.rewards, "rewards"))[k]));
  }
  if (a.advantage == PROSPECT_GDPO) {
    const std::span<const double> weights{a.weights, a.weights == nullptr ? 0 : rewards.size()};
    return prospect::cpu::gdpo_advantages(rewards, groups, out, weights, scaling.epsilon);
  }
  if (rewards.size() != 1) pk::fail(PROSPECT_INVALID_ARGUMENT, "components must be 1");
  switch (a.advantage) {
    case PROSPECT_GRPO:
      return prospect::cpu::grpo_advantages(rewards[0], groups, out, scaling);
    case PROSPECT_RLOO:
      return prospect::cpu::rloo_advantages(rewards[0], groups, out);
    default:
      pk::fail(PROSPECT_UNSUPPORTED, "advantage is unknown");
  }
}

}  // namespace

prospect_status prospect_advantages_cpu(const prospect_advantages* advantages, int64_t* unrewarded,
                                        int64_t* first_unrewarded, prospect_error* error) {
  return pk::guard(error, [&] {
    const prospect_advantages a = pk::versioned(advantages, "advantages");
    pk::check_reserved("advantages", a.reserved);
    const prospect::cpu::unrewarded out = write_advantages(a);
    if (unrewarded != nullptr) *unrewarded = out.count;
    if (first_unrewarded != nullptr) *first_unrewarded = out.first;
  });
}

prospect_status prospect_best_and_worst_cpu(prospect_row rewards, const prospect_layout* groups,
                                            prospect_row chosen, prospect_row rejected,
                                            int64_t* pairs, prospect_error* error) {
  return pk::guard(error, [&] {
    pk::require(pairs, "pairs");
    pk::with_indices(chosen, rejected, [&](auto chosen_row, auto rejected_row) {
      *pairs =
          prospect::cpu::best_and_worst(pk::real_row<prospect::const_any_row>("rewards", rewards),
                                        pk::layout_of(groups), chosen_row, rejected_row);
    });
  });
}

prospect_status prospect_optimal_value_cpu(prospect_row rewards, double beta1, double* value,
                                           prospect_error* error) {
  return pk::guard(error, [&] {
    pk::require(value, "value");
    *value = prospect::cpu::optimal_value(pk::real_row<prospect::const_any_row>("rewards", rewards),
                                          beta1);
  });
}
