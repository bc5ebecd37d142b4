// Kahneman-Tversky optimisation: learning from thumbs up and thumbs down alone.
#pragma once

#include <prospect/losses/concepts.hpp>

#include <array>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2 {

/// KTO (Ethayarajh et al. 2024, arXiv:2402.01306, eq. 8), lambda_y - v(x, y) in closed form.
///
///   desirable:   loss = desirable_weight   sigmoid(-beta (r - z))
///   undesirable: loss = undesirable_weight sigmoid(-beta (z - r)),  r the summed log-ratio
///
/// The reference point z is an argument in nats and comes from a provider (reference_point.hpp).
/// With the attached cross-class baselines it is HALOs' SimpleKTO. The weights multiply the loss
/// and never enter a denominator; class_weights.hpp proposes them from the counts.
struct kto {
  double beta = 0.1;
  double desirable_weight = 1.0;
  double undesirable_weight = 1.0;

  static constexpr std::string_view name = "kto";
  static constexpr bool branch_free = true;
  static constexpr std::array<parameter<kto>, 3> parameters{
      {{"beta", &kto::beta},
       {"desirable_weight", &kto::desirable_weight},
       {"undesirable_weight", &kto::undesirable_weight}}};

  PROSPECT_INLINE constexpr const char* problem() const {
    if (!detail::positive(beta)) return "beta must be positive (1e-30 to 1e30)";
    return detail::problem_of_weights(desirable_weight, undesirable_weight);
  }

  template <class T>
  PROSPECT_HD constexpr T operator()(const unpaired<T>& e) const {
    const T advantage = e.pick(beta, -beta) * (e.log_ratio() - e.z);
    return sigmoid(-advantage) * e.pick(desirable_weight, undesirable_weight);
  }
};

}  // namespace prospect::inline v2
PROSPECT_STRICT_END
