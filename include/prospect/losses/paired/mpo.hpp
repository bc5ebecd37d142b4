// Mixed preference optimisation: preference, quality and generation.
#pragma once

#include <prospect/losses/concepts.hpp>
#include <prospect/losses/paired/bco_pair.hpp>
#include <prospect/losses/paired/dpo.hpp>
#include <prospect/losses/parts/next_token.hpp>

#include <array>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2 {

/// MPO (Wang et al. 2024, arXiv:2411.10442, eq. 1): DPO for the preference, BCO's classifier for
/// the quality of each completion, and the negative log-likelihood per token of the chosen one. TRL
/// writes it `loss_type=["sigmoid", "bco_pair", "sft"]`, `loss_weights=[0.8, 0.2, 1.0]`. Other
/// mixtures are values: losses/parts/mixture.hpp.
///
///   loss = sigmoid_weight dpo + bco_pair_weight bco_pair - sft_weight log pi(chosen) / tokens
struct mpo {
  double beta = 0.1;
  double sigmoid_weight = 0.8;
  double bco_pair_weight = 0.2;
  double sft_weight = 1.0;  ///< weight of the next-token term

  static constexpr std::string_view name = "mpo";
  static constexpr bool branch_free = true;
  static constexpr std::array<parameter<mpo>, 4> parameters{
      {{"beta", &mpo::beta},
       {"sigmoid_weight", &mpo::sigmoid_weight},
       {"bco_pair_weight", &mpo::bco_pair_weight},
       {"sft_weight", &mpo::sft_weight}}};

  PROSPECT_INLINE constexpr const char* problem() const {
    if (!detail::positive(beta)) return "beta must be positive (1e-30 to 1e30)";
    if (!detail::not_negative(sigmoid_weight))
      return "sigmoid_weight must not be negative (0 to 1e30)";
    if (!detail::not_negative(bco_pair_weight))
      return "bco_pair_weight must not be negative (0 to 1e30)";
    if (!detail::not_negative(sft_weight)) return "sft_weight must not be negative (0 to 1e30)";
    return nullptr;
  }
  PROSPECT_HD constexpr next_token_term next_token() const {
    return {.weight = sft_weight, .chosen = true};
  }

  template <class T>
  PROSPECT_HD constexpr T operator()(const pair<T>& p) const {
    return term(sigmoid_weight, dpo{.beta = beta}(p)) +
           term(bco_pair_weight, bco_pair{.beta = beta}(p));
  }
};

}  // namespace prospect::inline v2
PROSPECT_STRICT_END
