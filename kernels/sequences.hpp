// Sequences as the C API has them, as batches of the library, and metrics the other way; for the
// host and for the device.
#pragma once

#include "boundary.hpp"

#include <prospect/reference_point.hpp>

#include <cmath>
#include <cstddef>
#include <type_traits>

namespace prospect::kernels {

/// Writes as much as the caller's version of the struct can hold.
template <class Metrics>
void fill(prospect_metrics* target, const Metrics& source) {
  if (target == nullptr) return;
  prospect_metrics filled{};
  filled.struct_size = target->struct_size;
  filled.total = source.total;
  filled.first_nonfinite = source.first_nonfinite;
  const auto named = source.named();
  static_assert(named.size() <= std::extent_v<decltype(filled.metric)>);
  constexpr std::size_t before = offsetof(prospect_metrics, metric);
  const std::size_t room =
      target->struct_size < before ? 0 : (target->struct_size - before) / sizeof(prospect_metric);
  for (const named_metric& m : named) {
    if (static_cast<std::size_t>(filled.size) == room) break;
    filled.metric[filled.size++] = {
        .name = m.name.data(), .sum = m.value.sum, .count = m.value.count};
  }
  std::memcpy(target, &filled, std::min<std::size_t>(target->struct_size, sizeof(filled)));
}

inline void check_metrics(const prospect_metrics* metrics) {
  if (metrics != nullptr) versioned(metrics, "metrics");
}

template <class L>
[[noreturn]] void wrong_kind(const L& loss, const char* kind) {
  fail(PROSPECT_INVALID_ARGUMENT, "loss: " + std::string{loss.name} + " is not " + kind + " loss");
}

template <storage S>
paired_batch<S> batch_of(const prospect_pairs& p) {
  return {.policy_chosen = in<S>("policy_chosen", p.policy_chosen),
          .policy_rejected = in<S>("policy_rejected", p.policy_rejected),
          .reference_chosen = in<S>("reference_chosen", p.reference_chosen),
          .reference_rejected = in<S>("reference_rejected", p.reference_rejected),
          .chosen_tokens = in<std::int32_t>("chosen_tokens", p.chosen_tokens),
          .rejected_tokens = in<std::int32_t>("rejected_tokens", p.rejected_tokens)};
}

template <storage S>
paired_outputs<S> outputs_of(const prospect_pairs& p) {
  return {.loss = out<S>("loss", p.loss),
          .d_policy_chosen = out<S>("d_policy_chosen", p.d_policy_chosen),
          .d_policy_rejected = out<S>("d_policy_rejected", p.d_policy_rejected),
          .reward_chosen = out<S>("reward_chosen", p.reward_chosen),
          .reward_rejected = out<S>("reward_rejected", p.reward_rejected)};
}

template <storage S>
unpaired_batch<S> batch_of(const prospect_completions& c) {
  return {.policy = in<S>("policy", c.policy),
          .reference = in<S>("reference", c.reference),
          .desirable = in<std::uint8_t>("desirable", c.desirable),
          .tokens = in<std::int32_t>("tokens", c.tokens)};
}

template <storage S>
unpaired_outputs<S> outputs_of(const prospect_completions& c) {
  return {.loss = out<S>("loss", c.loss),
          .d_policy = out<S>("d_policy", c.d_policy),
          .reward = out<S>("reward", c.reward)};
}

inline reference_point given_point(const prospect_completions& c) {
  if (!std::isfinite(c.z) || !std::isfinite(c.z_raw)) {
    fail(PROSPECT_INVALID_ARGUMENT, "z and z_raw must be finite");
  }
  return {.z = c.z, .raw = c.z_raw};
}

}  // namespace prospect::kernels
