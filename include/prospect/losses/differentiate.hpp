// A loss and its gradient, from the one formula: the only place where dual numbers are seeded.
// Every back end calls these functions per example.
#pragma once

#include <prospect/losses/concepts.hpp>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2 {

/// The loss of one pair and its derivatives in the two summed policy log-probabilities.
template <class R>
struct paired_value {
  R loss;
  R d_chosen;
  R d_rejected;
};

/// The loss of one completion and its derivatives in its summed policy log-probability and in z.
template <class R>
struct unpaired_value {
  R loss;
  R d_policy;
  R d_z;
};

/// The loss of one value estimate and its derivative in the value.
template <class R>
struct value_gradient {
  R loss;
  R d_value;
};

/// The loss of one token, its derivative in the token's own log-probability, and that in the sum
/// over its sequence.
template <class R>
struct token_value {
  R loss;
  R d_policy;
  R d_sum;
};

/// What one token adds to the sum over its sequence, and how that changes with its log-probability.
template <class R>
struct token_contribution {
  R value;
  R slope;
};

namespace detail {

template <int K, class R>
PROSPECT_HD constexpr completion<dual<R, 2>> variable(const completion<R>& c) noexcept {
  return {.policy = dual<R, 2>::variable(c.policy, K),
          .ratio = dual<R, 2>::variable(c.ratio, K),
          .tokens = c.tokens};
}

}  // namespace detail

/// The loss of `sample` and its gradient. The reference carries no gradient.
template <number R, paired_loss<R> L>
PROSPECT_HD constexpr paired_value<R> differentiate(const L& loss, const pair<R>& sample) {
  const dual<R, 2> result = loss(pair<dual<R, 2>>{.chosen = detail::variable<0>(sample.chosen),
                                                  .rejected = detail::variable<1>(sample.rejected),
                                                  .margin = sample.margin});
  return {.loss = result.value, .d_chosen = result.partial[0], .d_rejected = result.partial[1]};
}

/// The loss of `sample`, its gradient, and dL/dz, which only an attached reference point uses.
template <number R, unpaired_loss<R> L>
PROSPECT_HD constexpr unpaired_value<R> differentiate(const L& loss, const unpaired<R>& sample) {
  const dual<R, 2> result = loss(unpaired<dual<R, 2>>{.answer = detail::variable<0>(sample.answer),
                                                      .z = dual<R, 2>::variable(sample.z, 1),
                                                      .desirable = sample.desirable,
                                                      .target = sample.target});
  return {.loss = result.value, .d_policy = result.partial[0], .d_z = result.partial[1]};
}

/// The loss of `sample` and its derivative. Old values and returns carry no gradient.
template <number R, value_loss<R> L>
PROSPECT_HD constexpr value_gradient<R> differentiate(const L& loss,
                                                      const value_estimate<R>& sample) {
  const dual<R, 1> result =
      loss(value_estimate<dual<R, 1>>{.value = dual<R, 1>::variable(sample.value, 0),
                                      .old_value = sample.old_value,
                                      .returns = sample.returns});
  return {.loss = result.value, .d_value = result.partial[0]};
}

/// The loss of a token and its gradient. Neither the old policy nor the reference carries gradient.
///
/// Of a loss that sums tokens, the gradient of a whole sequence is
///   d loss / d policy_t = d_policy_t + slope_t sum_s d_sum_s
/// with the slope of what token t contributes.
template <number R, token_loss<R> L, class E = token_exponentials>
PROSPECT_HD constexpr token_value<R> differentiate(const L& loss, const token<R>& sample,
                                                   const E& exponentials = {}) {
  using D = dual<R, 2>;
  const D result = loss_of(loss,
                           token<D>{.policy = D::variable(sample.policy, 0),
                                    .ratio = D::variable(sample.ratio, 0),
                                    .reference_ratio = D::variable(sample.reference_ratio, 0),
                                    .advantage = sample.advantage,
                                    .sum = D::variable(sample.sum, 1),
                                    .tokens = sample.tokens},
                           exponentials);
  return {.loss = result.value, .d_policy = result.partial[0], .d_sum = result.partial[1]};
}

/// What `sample` adds to the sum over its sequence, for a loss that reads it.
template <number R, token_loss<R> L>
  requires sums_tokens<L>
PROSPECT_HD constexpr token_contribution<R> contribution(const L& loss, const token<R>& sample) {
  using D = dual<R, 2>;
  const D result =
      loss.contribution(token<D>{.policy = D::variable(sample.policy, 0),
                                 .ratio = D::variable(sample.ratio, 0),
                                 .reference_ratio = D::variable(sample.reference_ratio, 0),
                                 .advantage = sample.advantage,
                                 .tokens = sample.tokens});
  return {.value = result.value, .slope = result.partial[0]};
}

}  // namespace prospect::inline v2
PROSPECT_STRICT_END
