// Binary classifier optimisation.
#pragma once

#include <prospect/losses/unpaired/kto_logsigmoid.hpp>

#include <array>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2 {

/// BCO (Jung et al. 2024, arXiv:2404.04656, eq. 10). The reward shift delta is beta z: give as the
/// reference point the running mean of log-ratios of both classes, in nats. The formula is then
/// that of `kto_logsigmoid`, from which only the point differs.
///
///   desirable:   loss = desirable_weight   softplus(-(beta r - delta))
///   undesirable: loss = undesirable_weight softplus(beta r - delta),  r the summed log-ratio
struct bco {
  double beta = 0.1;
  double desirable_weight = 1.0;
  double undesirable_weight = 1.0;

  static constexpr std::string_view name = "bco";
  static constexpr bool branch_free = true;
  static constexpr std::array<parameter<bco>, 3> parameters{
      {{"beta", &bco::beta},
       {"desirable_weight", &bco::desirable_weight},
       {"undesirable_weight", &bco::undesirable_weight}}};

  PROSPECT_INLINE constexpr const char* problem() const {
    if (!detail::positive(beta)) return "beta must be positive (1e-30 to 1e30)";
    return detail::problem_of_weights(desirable_weight, undesirable_weight);
  }

  template <class T>
  PROSPECT_HD constexpr T operator()(const unpaired<T>& e) const {
    return kto_logsigmoid{beta, desirable_weight, undesirable_weight}(e);
  }
};

}  // namespace prospect::inline v2
PROSPECT_STRICT_END
