// KTO over mean log-probabilities, without a reference.
#pragma once

#include <prospect/losses/concepts.hpp>

#include <array>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2 {

/// KTO (Ethayarajh et al. 2024, arXiv:2402.01306, eq. 8) with the mean log-probability per token in
/// place of the log-ratio, as HALOs had it. z is then the mean of those of mismatched completions,
/// and is not clamped at 0.
///
///   desirable:   loss = desirable_weight   sigmoid(-beta (p - z))
///   undesirable: loss = undesirable_weight sigmoid(-beta (z - p))
struct kto_surprisal {
  double beta = 0.1;
  double desirable_weight = 1.0;
  double undesirable_weight = 1.0;

  static constexpr std::string_view name = "kto_surprisal";
  static constexpr bool branch_free = true;
  static constexpr std::array<parameter<kto_surprisal>, 3> parameters{
      {{"beta", &kto_surprisal::beta},
       {"desirable_weight", &kto_surprisal::desirable_weight},
       {"undesirable_weight", &kto_surprisal::undesirable_weight}}};

  PROSPECT_INLINE constexpr const char* problem() const {
    if (!detail::positive(beta)) return "beta must be positive (1e-30 to 1e30)";
    return detail::problem_of_weights(desirable_weight, undesirable_weight);
  }

  template <class T>
  PROSPECT_HD constexpr T operator()(const unpaired<T>& e) const {
    const T advantage = e.pick(beta, -beta) * (e.answer.mean_policy() - e.z);
    return sigmoid(-advantage) * e.pick(desirable_weight, undesirable_weight);
  }
};

}  // namespace prospect::inline v2
PROSPECT_STRICT_END
