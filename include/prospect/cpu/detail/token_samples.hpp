// Tokens as a loss takes them, several at once or one by one, and what it makes of them.
#pragma once

#include <prospect/cpu/detail/samples.hpp>
#include <prospect/cpu/detail/scored_rows.hpp>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v1::cpu::detail {

/// What the tokens of one sequence have in common, once its tokens were added up.
struct sequence_terms {
  double advantage = 0;
  double tokens = 1;
  double sum = 0;     ///< of what each contributes
  double d_sum = 0;   ///< dL/dsum over all tokens, before the factor
  double factor = 1;  ///< between a token's derivative and its coefficient
};

inline namespace PROSPECT_CPU_ISA {

/// Several tokens. Not token<several<R>>, whose functions nvcc would want for the device.
template <std::floating_point R>
struct tokens {
  several<R> policy, ratio, reference_ratio, advantage;

  token<R> lane(int k, const sequence_terms& of) const {
    return {.policy = policy.lane[k],
            .ratio = ratio.lane[k],
            .reference_ratio = reference_ratio.lane[k],
            .advantage = advantage.lane[k],
            .sum = static_cast<R>(of.sum),
            .tokens = static_cast<R>(of.tokens)};
  }
};

/// Where a block of tokens is, of rows some of which are not given: null.
template <std::floating_point R>
struct tokens_at {
  const R* scored;  ///< 1 for each token, and 0 in what is left of the last vector
  const R* policy;
  const R* old;
  const R* reference;
  const R* advantage;  ///< null where the sequence has one
  const R* weight;
  const R* entropy;

  PROSPECT_INLINE flag_of<several<R>> kept(int i) const {
    return several<R>(0) < load_several<R>(scored + i);
  }
  /// The log-ratio of a missing row: pi / pi_old = 1 on policy, and a reference that is not given
  /// was found unread.
  PROSPECT_INLINE several<R> less(several<R> p, const R* row, int i) const {
    return row == nullptr ? several<R>(0) : p - load_several<R>(row + i);
  }
  PROSPECT_INLINE tokens<R> several_of(int i, several<R> of_sequence) const {
    const several<R> p = load_several<R>(policy + i);
    return {.policy = p,
            .ratio = less(p, old, i),
            .reference_ratio = less(p, reference, i),
            .advantage = advantage == nullptr ? of_sequence : load_several<R>(advantage + i)};
  }
  bool finite(std::int64_t i) const {
    const auto is = [i](const R* row) {
      return row == nullptr || prospect::detail::is_finite(row[i]);
    };
    return is(policy) && is(old) && is(reference) && is(advantage) && is(weight) && is(entropy);
  }
};

/// Tokens of a batch, as their blocks are read.
template <std::floating_point R>
struct token_rows {
  row_reader<R> policy, old, reference, advantage, weight, entropy;

  tokens_at<R> read(const scored_block& block) {
    const auto of = [&](row_reader<R>& row) { return row.read(block.at, block.through); };
    return {.scored = ones<R>.row + (block_size - block.at.count),
            .policy = of(policy),
            .old = of(old),
            .reference = of(reference),
            .advantage = of(advantage),
            .weight = of(weight),
            .entropy = of(entropy)};
  }
};

/// The losses of several tokens and their derivatives; those that are not kept are not asked for.
template <std::floating_point R, class Loss>
token_value<several<R>> values_of(const Loss& loss, const tokens<R>& t, const sequence_terms& of,
                                  flag_of<several<R>> kept) {
  if constexpr (lanewise<Loss, R>) {
    return differentiate(loss, token<several<R>>{.policy = t.policy,
                                                 .ratio = t.ratio,
                                                 .reference_ratio = t.reference_ratio,
                                                 .advantage = t.advantage,
                                                 .sum = of.sum,
                                                 .tokens = of.tokens});
  } else {
    token_value<several<R>> values{};
    for (int k = 0; k < lanes<R>; ++k) {
      if (!kept[k]) continue;
      const auto value = differentiate(loss, t.lane(k, of));
      values.loss.lane[k] = value.loss;
      values.d_policy.lane[k] = value.d_policy;
      values.d_sum.lane[k] = value.d_sum;
    }
    return values;
  }
}

/// What several tokens add to the sum over their sequence.
template <std::floating_point R, class Loss>
token_contribution<several<R>> contributions_of(const Loss& loss, const tokens<R>& t,
                                                const sequence_terms& of,
                                                flag_of<several<R>> kept) {
  if constexpr (lanewise<Loss, R>) {
    return contribution(loss, token<several<R>>{.policy = t.policy,
                                                .ratio = t.ratio,
                                                .reference_ratio = t.reference_ratio,
                                                .advantage = t.advantage,
                                                .tokens = of.tokens});
  } else {
    token_contribution<several<R>> values{};
    for (int k = 0; k < lanes<R>; ++k) {
      if (!kept[k]) continue;
      const auto value = contribution(loss, t.lane(k, of));
      values.value.lane[k] = value.value;
      values.slope.lane[k] = value.slope;
    }
    return values;
  }
}

/// f of each lane that is kept, and 0 in the others: for what is no vector code.
template <std::floating_point R, class F>
several<R> in_lanes(several<R> x, flag_of<several<R>> kept, const F& f) {
  several<R> y;
  for (int k = 0; k < lanes<R>; ++k) {
    if (kept[k]) y.lane[k] = f(x.lane[k]);
  }
  return y;
}

/// pi / pi_old.
PROSPECT_INLINE several<float> ratios(several<float> log_ratio, flag_of<several<float>> kept) {
  return select(kept, prospect::exp(log_ratio), several<float>(0));
}
PROSPECT_INLINE several<double> ratios(several<double> log_ratio, flag_of<several<double>> kept) {
  return in_lanes(log_ratio, kept, [](double x) { return prospect::exp(x); });
}

/// The estimates e^x - 1 - x >= 0, x = log (reference / policy), of their divergence.
PROSPECT_INLINE several<float> divergences(several<float> log_ratio, flag_of<several<float>> kept) {
  const auto of = [](auto x) __attribute__((always_inline)) {
    return prospect::detail::wide::expm1(x) - x;
  };
  return select(kept, in_double(-log_ratio, of), several<float>(0));
}
PROSPECT_INLINE several<double> divergences(several<double> log_ratio,
                                            flag_of<several<double>> kept) {
  return in_lanes(-log_ratio, kept, [](double x) { return prospect::expm1(x) - x; });
}

}  // namespace PROSPECT_CPU_ISA
}  // namespace prospect::inline v1::cpu::detail
PROSPECT_STRICT_END
