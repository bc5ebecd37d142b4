// The sequence kernels as a back end for the checks of tests/cpu/sequence_checks.hpp: cases of host
// tests with a copy on the device, and the launchers around them.

#pragma once

#include <prospect/cuda/sequences.cuh>

#include <cstdint>

#include "cpu/cases.hpp"
#include "cuda/device.hpp"

namespace testing {

namespace gpu = prospect::cuda;
using gpu::detail::sequence_scheme;

inline constexpr sequence_scheme schemes[] = {sequence_scheme::block, sequence_scheme::cluster,
                                              sequence_scheme::grid};

inline bool has_clusters() {
  gpu::detail::device_limits device;
  require_success(gpu::detail::device_limits::of_current(device));
  return device.major >= 9;
}

/// Metrics on the device, poisoned.
template <class Metrics>
struct device_metrics {
  device_array<Metrics> memory{1};
  Metrics* data() const { return memory.data(); }
  Metrics host() const { return memory.host()[0]; }
};

template <class S>
struct on_device_pairs {
  device_row<S> policy_chosen, policy_rejected, reference_chosen, reference_rejected;
  device_row<std::int32_t> chosen_tokens, rejected_tokens;
  device_row<S> loss, d_chosen, d_rejected, reward_chosen, reward_rejected;

  explicit on_device_pairs(paired_case<S>& c)
      : policy_chosen{c.policy_chosen},
        policy_rejected{c.policy_rejected},
        reference_chosen{c.reference_chosen},
        reference_rejected{c.reference_rejected},
        chosen_tokens{c.chosen_tokens},
        rejected_tokens{c.rejected_tokens},
        loss{c.loss},
        d_chosen{c.d_chosen},
        d_rejected{c.d_rejected},
        reward_chosen{c.reward_chosen},
        reward_rejected{c.reward_rejected} {}
  prospect::paired_batch<S> in() const {
    return {.policy_chosen = policy_chosen.view(),
            .policy_rejected = policy_rejected.view(),
            .reference_chosen = reference_chosen.view(),
            .reference_rejected = reference_rejected.view(),
            .chosen_tokens = chosen_tokens.view(),
            .rejected_tokens = rejected_tokens.view()};
  }
  prospect::paired_outputs<S> out() const {
    return {.loss = loss.view(),
            .d_policy_chosen = d_chosen.view(),
            .d_policy_rejected = d_rejected.view(),
            .reward_chosen = reward_chosen.view(),
            .reward_rejected = reward_rejected.view()};
  }
  void fetch() {
    for (auto* row : {&loss, &d_chosen, &d_rejected, &reward_chosen, &reward_rejected}) {
      row->fetch();
    }
  }
};

template <class S>
struct on_device_completions {
  device_row<S> policy, reference;
  device_row<std::uint8_t> desirable;
  device_row<std::int32_t> tokens;
  device_row<S> loss, d_policy, reward;

  explicit on_device_completions(unpaired_case<S>& c)
      : policy{c.policy},
        reference{c.reference},
        desirable{c.desirable},
        tokens{c.tokens},
        loss{c.loss},
        d_policy{c.d_policy},
        reward{c.reward} {}
  prospect::unpaired_batch<S> in() const {
    return {.policy = policy.view(),
            .reference = reference.view(),
            .desirable = desirable.view(),
            .tokens = tokens.view()};
  }
  prospect::unpaired_outputs<S> out() const {
    return {.loss = loss.view(), .d_policy = d_policy.view(), .reward = reward.view()};
  }
  void fetch() {
    for (auto* row : {&loss, &d_policy, &reward}) row->fetch();
  }
};

/// The back end under test, by its own choice of a scheme.
struct cuda_sequences {
  template <class S, class L>
  prospect::paired_metrics operator()(const L& loss, paired_case<S>& c) const {
    on_device_pairs<S> d{c};
    const device_metrics<prospect::paired_metrics> metrics;
    require_success(with_scratch([&](gpu::scratch space) {
      return gpu::evaluate(loss, d.in(), d.out(), prospect::normaliser::mean(), metrics.data(),
                           space, nullptr);
    }));
    d.fetch();
    return metrics.host();
  }
  template <class S, class L, class Point>
  prospect::unpaired_metrics operator()(const L& loss, unpaired_case<S>& c,
                                        const Point& point) const {
    on_device_completions<S> d{c};
    const device_metrics<prospect::unpaired_metrics> metrics;
    require_success(with_scratch([&](gpu::scratch space) {
      return gpu::evaluate(loss, d.in(), point, d.out(), prospect::normaliser::mean(),
                           metrics.data(), space, nullptr);
    }));
    d.fetch();
    return metrics.host();
  }
};
inline constexpr cuda_sequences sequences_on_cuda;

/// By a scheme of the test's choice.
template <class Job>
void run_scheme(const Job& job, sequence_scheme scheme) {
  require_success(with_scratch(
      [&](gpu::scratch space) { return gpu::detail::run(job, scheme, space, nullptr); }));
}

}  // namespace testing
