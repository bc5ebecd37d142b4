// REINFORCE leave-one-out: the ratio of whole sequences.
#pragma once

#include <prospect/losses/concepts.hpp>
#include <prospect/losses/parts/ratio_clip.hpp>

#include <array>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2 {

/// RLOO (Ahmadian et al. 2024, arXiv:2402.14740), as TRL clips it.
///
///   loss = -min(A r, A clip(r, 1 - epsilon, 1 + epsilon_high)),
///   r = exp(sum over the sequence of log pi - log pi_old), attached; one loss for a sequence
///
/// Its KL penalty is part of the reward (k1), and its advantages are `rloo_advantages` of
/// rewards.hpp.
struct rloo {
  double epsilon = 0.2;       ///< r is not led below 1 - epsilon
  double epsilon_high = 0.2;  ///< nor above 1 + epsilon_high

  static constexpr std::string_view name = "rloo";
  static constexpr bool branch_free = true;
  static constexpr averaging average = averaging::sequence_means;
  static constexpr std::array<parameter<rloo>, 2> parameters{
      {{"epsilon", &rloo::epsilon}, {"epsilon_high", &rloo::epsilon_high}}};

  PROSPECT_INLINE constexpr const char* problem() const {
    return detail::problem_of_clipping(epsilon, epsilon_high);
  }

  PROSPECT_INLINE static constexpr bool sequence_level() { return true; }
  /// A sequence's log-ratio is the sum of its tokens'.
  template <class T>
  PROSPECT_HD constexpr T contribution(const token<T>& t) const {
    return t.log_ratio();
  }

  template <class T>
  PROSPECT_HD constexpr T operator()(const token<T>& t) const {
    return clipped_surrogate(t.sum, exp(value_of(t.sum)), t.advantage,
                             {.low = 1 - epsilon, .high = 1 + epsilon_high});
  }
};

}  // namespace prospect::inline v2
PROSPECT_STRICT_END
