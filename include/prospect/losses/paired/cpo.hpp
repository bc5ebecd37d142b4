// Contrastive preference optimisation, without a reference.
#pragma once

#include <prospect/losses/concepts.hpp>
#include <prospect/losses/parts/smoothed.hpp>

#include <array>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v1 {

/// CPO's preference term (Xu et al. 2024, arXiv:2401.08417, eq. 5): DPO with a uniform reference.
/// The negative log-likelihood that the paper adds has a denominator of its own, tokens: it is a
/// term of a mixture.
///
///   m = beta (log pi(chosen) - log pi(rejected)),  loss = softplus(-m) + e m
struct cpo {
  double beta = 0.1;
  double label_smoothing = 0.0;  ///< in [0, 1)

  static constexpr std::string_view name = "cpo";
  static constexpr bool branch_free = true;
  static constexpr std::array<parameter<cpo>, 2> parameters{
      {{"beta", &cpo::beta}, {"label_smoothing", &cpo::label_smoothing}}};

  PROSPECT_INLINE constexpr const char* problem() const {
    if (!detail::positive(beta)) return "beta must be positive (1e-30 to 1e30)";
    if (!(label_smoothing >= 0 && label_smoothing < 1)) return "label_smoothing must lie in [0, 1)";
    return nullptr;
  }

  template <class T>
  PROSPECT_HD constexpr T operator()(const pair<T>& p) const {
    return smoothed(beta * p.policy_margin(), label_smoothing);
  }
};

}  // namespace prospect::inline v1
PROSPECT_STRICT_END
