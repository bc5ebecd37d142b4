// What goes into a batch of tokens and what comes out of it: the third kind beside pairs and
// thumbs, for supervised fine-tuning and the policy-gradient relatives of preference losses. Shared
// by every back end; holds no loop over data.
#pragma once

#include <prospect/batch.hpp>
#include <prospect/losses/concepts.hpp>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2 {

/// n tokens of sequences that `layout` tells apart, as rows of n elements unless said otherwise.
/// Rows hold what they hold, fp32, fp64 or 16 bits, and need not agree.
///
/// Scored are the tokens of a sequence whose target is not -100 and whose mask is not 0; either row
/// may be left out. The others are skipped, whatever their rows hold: their results are 0.
struct token_batch {
  const_any_row policy{};     ///< log pi(y_t), nats
  const_any_row old{};        ///< of the policy that sampled; empty: the policy itself, detached
  const_any_row reference{};  ///< required by a loss that reads it, never assumed
  /// Either one for each sequence, or one for each token: give one of the two.
  const_any_row advantage{};
  const_any_row token_advantage{};
  const_any_row weight{};   ///< times loss and coefficient, never in a denominator; empty: 1 each
  const_any_row entropy{};  ///< of the row's distribution, nats; required by the bonus
  index_row targets{};      ///< as phase 1 had them; only -100 matters
  mask_row mask{};
  sequence_layout layout{};
  /// The bonus: entropy_coef times the mean entropy, averaged as the loss is, is subtracted.
  double entropy_coef = 0;
};

namespace detail {

/// Whether arithmetic on a batch is fp64.
PROSPECT_INLINE constexpr bool in_fp64(const token_batch& in) noexcept {
  return is_fp64(in.policy) || is_fp64(in.old) || is_fp64(in.reference);
}

}  // namespace detail

/// Where results for n tokens go; an empty row is not written. Outputs may not overlap inputs.
struct token_batch_outputs {
  any_row loss{};       ///< per token, times its weight; never reduced, averaged or normalised
  any_row d_policy{};   ///< dL/dlogp, after averaging and normaliser: phase 3's coefficient
  any_row d_entropy{};  ///< dL/dH, likewise: the third coefficient of phase 3
};

/// Metrics of a token batch, over scored tokens.
struct token_metrics {
  sum_count loss;        ///< as averaged: a sum over tokens, sequence means, or sequence sums
  sum_count advantages;  ///< over tokens
  sum_count ratio;       ///< pi / pi_old, over tokens
  sum_count clip_ratio;  ///< tokens whose advantage is not 0 and whose coefficient is
  sum_count kl;          ///< of policy and reference, estimated by k3; absent without a reference
  sum_count entropy;     ///< absent without the row
  sum_count tokens;      ///< sum: scored tokens; count: sequences that have any
  /// Scored tokens of which an input that is given, the loss or the coefficient is not finite.
  sum_count nonfinite;
  std::int64_t first_nonfinite = -1;  ///< index of the first of them in this call, or -1
  double total = 0;                   ///< the scalar loss: the sum times the normaliser's factor

  PROSPECT_INLINE constexpr std::array<named_metric, 8> named() const {
    return {{{"loss", loss},
             {"advantages", advantages},
             {"ratio", ratio},
             {"clip_ratio", clip_ratio},
             {"kl", kl},
             {"entropy", entropy},
             {"tokens", tokens},
             {"nonfinite", nonfinite}}};
  }
};

}  // namespace prospect::inline v2
PROSPECT_STRICT_END
