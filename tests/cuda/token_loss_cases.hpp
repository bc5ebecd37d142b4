// Batches of tokens of the host's tests with a copy on the device.

#pragma once

#include <prospect/cuda/token_losses.cuh>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "cpu/token_loss_cases.hpp"
#include "cuda/device.hpp"

namespace testing {

/// A row whose type is a matter of run time, as it lies on the host.
class device_run_time_row {
 public:
  explicit device_run_time_row(const prospect::any_row& host)
      : host_{host}, memory_(bytes_of(host)) {
    std::vector<std::byte> bytes(memory_.size());
    if (!host.empty()) std::memcpy(bytes.data(), host.data(), bytes.size());
    memory_.set(bytes);
  }
  prospect::any_row view() const {
    if (host_.empty()) return {};
    return {memory_.data(), host_.type(), host_.size(), host_.stride()};
  }
  prospect::const_any_row input() const {
    if (host_.empty()) return {};
    return {memory_.data(), host_.type(), host_.size(), host_.stride()};
  }
  void fetch() const {
    const std::vector<std::byte> bytes = memory_.host();
    if (!host_.empty()) std::memcpy(host_.data(), bytes.data(), bytes.size());
  }

 private:
  static std::size_t bytes_of(const prospect::any_row& row) {
    if (row.empty()) return 0;
    const std::int64_t elements = (row.size() - 1) * row.stride() + 1;
    return static_cast<std::size_t>(elements * prospect::bytes_of(row.type()));
  }

  prospect::any_row host_;
  device_array<std::byte> memory_;
};

struct on_device_tokens {
  device_array<std::int64_t> begins, ends, targets;
  device_array<std::uint8_t> mask;
  device_run_time_row policy, old, reference, advantage, token_advantage, weight, entropy;
  device_run_time_row loss, d_policy, d_entropy;
  double entropy_coef;

  explicit on_device_tokens(token_loss_case& c)
      : begins{c.begins},
        ends{c.ends},
        targets{c.targets},
        mask{c.mask},
        policy{c.policy},
        old{c.old},
        reference{c.reference},
        advantage{c.advantage},
        token_advantage{c.token_advantage},
        weight{c.weight},
        entropy{c.entropy},
        loss{c.loss},
        d_policy{c.d_policy},
        d_entropy{c.d_entropy},
        entropy_coef{c.entropy_coef} {}

  prospect::token_batch in() const {
    return {.policy = policy.input(),
            .old = old.input(),
            .reference = reference.input(),
            .advantage = advantage.input(),
            .token_advantage = token_advantage.input(),
            .weight = weight.input(),
            .entropy = entropy.input(),
            .targets = targets.input(),
            .mask = mask.input(),
            .layout = prospect::sequence_layout::ranges(begins.input(), ends.input()),
            .entropy_coef = entropy_coef};
  }
  prospect::token_batch_outputs out() const {
    return {.loss = loss.view(), .d_policy = d_policy.view(), .d_entropy = d_entropy.view()};
  }
  void fetch() const {
    for (const auto* row : {&loss, &d_policy, &d_entropy}) row->fetch();
  }
};

}  // namespace testing
