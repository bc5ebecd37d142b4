// A loss of tokens, averaged another way than its paper does.
#pragma once

#include <prospect/losses/concepts.hpp>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2 {

/// L, its tokens averaged as `average` says. TRL's `importance_sampling_level="sequence"` with
/// `loss_type="bnpo"` is `averaged{gspo{}, averaging::tokens}`.
template <class L>
struct averaged {
  static_assert(token_loss<L>, "averaging is a matter of losses of tokens");
  static constexpr bool branch_free = branch_free_loss<L>;
  static constexpr bool detached_sum = detaches_sum<L>;

  L loss{};
  averaging average = loss.average;

  PROSPECT_INLINE constexpr const char* problem() const { return prospect::problem(loss); }

  PROSPECT_INLINE constexpr bool sequence_level() const { return prospect::sequence_level(loss); }
  template <class Sample>
  PROSPECT_HD constexpr auto contribution(const Sample& sample) const
    requires sums_tokens<L>
  {
    return loss.contribution(sample);
  }
  template <class T, class E = token_exponentials>
  PROSPECT_HD constexpr T operator()(const token<T>& t, const E& exponentials = {}) const {
    return loss_of(loss, t, exponentials);
  }
};
template <class L>
averaged(L, averaging) -> averaged<L>;

}  // namespace prospect::inline v2
PROSPECT_STRICT_END
