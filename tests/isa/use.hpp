// What one unit of a program does with the headers: called through a name of its own, so that units
// compiled for different processors can be linked into one program.
#pragma once

#include <prospect/prospect.hpp>

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

/// Whether every phase gives what it should, for logits {1, 2, 3, 4}, target 2, and a pair of them.
/// Of this unit alone: what a host's own inline functions are compiled for is the host's matter.
static bool phases_are_right() {
  using namespace prospect;
  std::vector<float> logits{1, 2, 3, 4, 1, 2, 3, 4};
  const std::vector<std::int64_t> targets{2, 1};
  std::vector<float> log_prob(2), d_token(2);
  std::vector<double> lse(2), sums(2);
  const matrix_view<float> x{logits.data(), 2, 4};
  cpu::token_log_probs<float>(x, targets, {.log_prob = log_prob, .lse = lse});
  const auto layout = sequence_layout::padded(2, 1);
  cpu::sequence_sums<float>(log_prob, targets, layout, {.log_prob = sums});

  const std::vector<double> reference{-2, -2};
  std::vector<double> d(2);
  const strided_span<const double> policy{sums};
  const strided_span<const double> base{reference};
  const strided_span<double> coefficients{d};
  const auto metrics = cpu::evaluate<double>(
      dpo{.beta = 1},
      {.policy_chosen = policy.slice(0, 1),
       .policy_rejected = policy.slice(1, 1),
       .reference_chosen = base.slice(0, 1),
       .reference_rejected = base.slice(1, 1)},
      {.d_policy_chosen = coefficients.slice(0, 1), .d_policy_rejected = coefficients.slice(1, 1)});
  cpu::spread<float>(d, targets, layout, d_token);
  cpu::logits_gradient<float>(x, targets, log_prob, lse, d_token);

  const std::vector<std::uint8_t> thumbs{1, 0};
  const auto z = reference_point::from(cpu::mismatched_kl<double>(policy, base));
  const auto kept = cpu::evaluate<double>(
      kto{}, {.policy = policy, .reference = base, .desirable = thumbs}, z, {});

  // log p(2) = -1.440190, log p(1) = -2.440190; softplus(-1) = 0.313262, sigmoid(-1) = 0.268941.
  const auto near = [](double a, double b) { return std::abs(a - b) < 1e-5; };
  return near(log_prob[0], -1.440190) && near(log_prob[1], -2.440190) &&
         near(metrics.total, 0.313262) && near(d[0], -0.268941) && near(d[1], 0.268941) &&
         near(logits[2], -0.268941 * (1 - 0.236883)) && kept.nonfinite.sum == 0;
}
