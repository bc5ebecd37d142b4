// The next-token term that some preference losses add: what stands beside the formula, because it
// has a denominator of its own.
#pragma once

#include <prospect/core/dual.hpp>

#include <concepts>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2 {

/// weight x the negative log-likelihood per token (SFT's loss) of completions of a pair, added to
/// the loss. A mean over tokens, not over pairs: the normaliser of a call says over how many. It is
/// linear in sums of log-probabilities, so nothing is left to differentiate, and loops add it.
///
///   total = mean over pairs of the formula - weight sum P / tokens
///
/// P and tokens are those of the chosen completion, of the third of a pair, or of both together.
struct next_token_term {
  double weight = 0;
  bool chosen = false;
  bool third = false;  ///< must be given, unless the chosen completion is counted too

  PROSPECT_HD constexpr bool over_same_as(const next_token_term& other) const noexcept {
    return chosen == other.chosen && third == other.third;
  }
};

/// A loss that has such a term says so by a member `next_token()`.
template <class L>
concept next_token_loss = requires(const L& loss) {
  { loss.next_token() } -> std::same_as<next_token_term>;
};

/// That of a loss; a weight of 0 where it has none.
template <class L>
PROSPECT_HD constexpr next_token_term next_token_of(const L& loss) {
  if constexpr (next_token_loss<L>) {
    return loss.next_token();
  } else {
    return {};
  }
}

}  // namespace prospect::inline v2
PROSPECT_STRICT_END
