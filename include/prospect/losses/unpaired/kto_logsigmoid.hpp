// KTO with the logarithm of the sigmoid.
#pragma once

#include <prospect/losses/concepts.hpp>

#include <array>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2 {

/// KTO's value function (Ethayarajh et al. 2024, arXiv:2402.01306, eq. 8) inside a logarithm, as
/// HALOs had it: what is far off keeps its slope.
///
///   desirable:   loss = desirable_weight   softplus(-beta (r - z))
///   undesirable: loss = undesirable_weight softplus(-beta (z - r)),  r the summed log-ratio
struct kto_logsigmoid {
  double beta = 0.1;
  double desirable_weight = 1.0;
  double undesirable_weight = 1.0;

  static constexpr std::string_view name = "kto_logsigmoid";
  static constexpr bool branch_free = true;
  static constexpr std::array<parameter<kto_logsigmoid>, 3> parameters{
      {{"beta", &kto_logsigmoid::beta},
       {"desirable_weight", &kto_logsigmoid::desirable_weight},
       {"undesirable_weight", &kto_logsigmoid::undesirable_weight}}};

  PROSPECT_INLINE constexpr const char* problem() const {
    if (!detail::positive(beta)) return "beta must be positive (1e-30 to 1e30)";
    return detail::problem_of_weights(desirable_weight, undesirable_weight);
  }

  template <class T>
  PROSPECT_HD constexpr T operator()(const unpaired<T>& e) const {
    const T advantage = e.pick(beta, -beta) * (e.log_ratio() - e.z);
    return softplus(-advantage) * e.pick(desirable_weight, undesirable_weight);
  }
};

}  // namespace prospect::inline v2
PROSPECT_STRICT_END
