// Binary classifier optimisation of a pair.
#pragma once

#include <prospect/losses/concepts.hpp>

#include <array>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2 {

/// BCO's classifier on both completions of a pair (Jung et al. 2024, arXiv:2404.04656), TRL's
/// `bco_pair`. `delta` is its reward shift, in units of beta times nats; TRL takes 0.
///
///   loss = softplus(-(beta chosen log-ratio - delta)) + softplus(beta rejected log-ratio - delta)
struct bco_pair {
  double beta = 0.1;
  double delta = 0.0;

  static constexpr std::string_view name = "bco_pair";
  static constexpr bool branch_free = true;
  static constexpr std::array<parameter<bco_pair>, 2> parameters{
      {{"beta", &bco_pair::beta}, {"delta", &bco_pair::delta}}};

  PROSPECT_INLINE constexpr const char* problem() const {
    if (!detail::positive(beta)) return "beta must be positive (1e-30 to 1e30)";
    if (!detail::of_either_sign(delta)) return "delta must lie in [-1e30, 1e30]";
    return nullptr;
  }

  template <class T>
  PROSPECT_HD constexpr T operator()(const pair<T>& p) const {
    return softplus(delta - beta * p.chosen.log_ratio()) +
           softplus(beta * p.rejected.log_ratio() - delta);
  }
};

}  // namespace prospect::inline v2
PROSPECT_STRICT_END
