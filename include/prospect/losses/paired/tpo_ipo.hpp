// TPO with IPO's square.
#pragma once

#include <prospect/losses/concepts.hpp>
#include <prospect/losses/parts/next_token.hpp>

#include <array>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2 {

/// TPO (Saeidi et al. 2024, arXiv:2405.16681) with the square of TRL's `loss_type="ipo"`, over
/// means per token; the third completion as in `tpo`.
///
///   loss = (mean log pi(chosen) - mean log pi(rejected) - 1 / (2 beta))^2
///          - tpo_alpha log pi(gold) / tokens
struct tpo_ipo {
  double beta = 0.01;
  double tpo_alpha = 1.0;  ///< weight of the next-token term

  static constexpr std::string_view name = "tpo_ipo";
  static constexpr bool branch_free = true;
  static constexpr std::array<parameter<tpo_ipo>, 2> parameters{
      {{"beta", &tpo_ipo::beta}, {"tpo_alpha", &tpo_ipo::tpo_alpha}}};

  PROSPECT_INLINE constexpr const char* problem() const {
    if (!detail::positive(beta)) return "beta must be positive (1e-30 to 1e30)";
    if (!detail::not_negative(tpo_alpha)) return "tpo_alpha must not be negative (0 to 1e30)";
    return nullptr;
  }
  PROSPECT_HD constexpr next_token_term next_token() const {
    return {.weight = tpo_alpha, .third = true};
  }

  template <class T>
  PROSPECT_HD constexpr T operator()(const pair<T>& p) const {
    return square(p.mean_policy_margin() - 1 / (2 * beta));
  }
};

}  // namespace prospect::inline v2
PROSPECT_STRICT_END
