// Tokens as a loss takes them, several at once or one by one, and what it makes of them.
#pragma once

#include <prospect/cpu/detail/samples.hpp>
#include <prospect/cpu/detail/scored_rows.hpp>
#include <prospect/losses/parts/kl.hpp>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cpu::detail {

/// What the tokens of one sequence have in common, once its tokens were added up.
struct sequence_terms {
  double advantage = 0;
  double tokens = 1;
  double sum = 0;     ///< of what each contributes
  double d_sum = 0;   ///< dL/dsum over all tokens, before the factor
  double factor = 1;  ///< between a token's derivative and its coefficient
};

inline namespace PROSPECT_CPU_ISA {

/// f of each lane: for what is no vector code.
template <std::floating_point R, class F>
several<R> in_lanes(several<R> x, const F& f) {
  for (int k = 0; k < lanes<R>; ++k) x.lane[k] = f(R{x.lane[k]});
  return x;
}

/// pi / pi_old.
template <std::floating_point R>
PROSPECT_INLINE several<R> ratios(several<R> log_ratio) {
  if constexpr (has_vector_primitives<R>) {
    return exp(log_ratio);
  } else {
    return in_lanes(log_ratio, [](R x) { return prospect::exp(x); });
  }
}

/// The estimates k3 of the divergence of policy and reference, and their slopes where a loss is
/// given several tokens at once.
template <std::floating_point R>
PROSPECT_INLINE value_and_slope<several<R>> divergences(several<R> log_ratio) {
  if constexpr (has_vector_primitives<R>) {
    return prospect::detail::k3(log_ratio);
  } else {
    return {in_lanes(-log_ratio, [](R x) { return prospect::detail::expm1_minus(x); }), {}};
  }
}

/// Exponentials of several tokens, worked out in a loop of their own.
template <std::floating_point R, bool reference>
struct known_exponentials {
  static constexpr bool has_reference = reference;
  several<R> known_ratio = 1;
  value_and_slope<several<R>> known_k3{};

  PROSPECT_INLINE several<R> ratio(several<R> /*log_ratio*/) const { return known_ratio; }
  PROSPECT_INLINE value_and_slope<several<R>> k3(several<R> /*log_reference_ratio*/) const {
    return known_k3;
  }
};

/// Several tokens. Not token<several<R>>, whose functions nvcc would want for the device.
template <std::floating_point R>
struct tokens {
  several<R> policy{}, ratio{}, reference_ratio{}, advantage{};

  token<R> lane(int k, const sequence_terms& of) const {
    return {.policy = policy.lane[k],
            .ratio = ratio.lane[k],
            .reference_ratio = reference_ratio.lane[k],
            .advantage = advantage.lane[k],
            .sum = static_cast<R>(of.sum),
            .tokens = static_cast<R>(of.tokens)};
  }
};

/// Where a block of tokens is. In place of a row that is not given stand numbers that change
/// nothing, so that no loop has to ask.
template <std::floating_point R>
struct tokens_at {
  int count = 0;
  const R* scored = nullptr;  ///< 1 for each token, and 0 in what is left of the last vector
  const R* policy = nullptr;
  const R* old = nullptr;
  const R* reference = nullptr;
  const R* advantage = nullptr;
  const R* weight = nullptr;
  const R* entropy = nullptr;           ///< of the bonus: 0 where there is none
  const R* measured_entropy = nullptr;  ///< null where none is given
  std::int64_t ahead = 0;               ///< how many tokens ahead memory is asked for
  bool has_old = false;
  bool has_reference = false;
  bool has_advantages = false;  ///< one for each token
  bool clips = false;           ///< whether a token whose coefficient is 0 was clipped

  /// Those from the i-th on, at most as many as a block has. Only rows that are given for each
  /// token may be longer than that.
  PROSPECT_INLINE tokens_at from(int i, bool with_options) const {
    const int left = count - i;
    const int option = with_options ? i : 0;
    // Not a copy that is changed, for which compilers go through memory.
    return {.count = left,
            .scored = ones<R>.row + (block_size - (std::min)(left, block_size)),
            .policy = policy + i,
            .old = old + i,
            .reference = reference + i,
            .advantage = advantage + option,
            .weight = weight + option,
            .entropy = entropy + option,
            .measured_entropy = measured_entropy == nullptr ? nullptr : measured_entropy + option,
            .ahead = ahead,
            .has_old = has_old,
            .has_reference = has_reference,
            .has_advantages = has_advantages,
            .clips = clips};
  }
  PROSPECT_INLINE flag_of<several<R>> kept(int i) const {
    return several<R>(0) < load_several<R>(scored + i);
  }
  /// Those from i on. Without an old policy pi / pi_old = 1, whatever pi is; a reference that is
  /// not given was found unread.
  PROSPECT_INLINE tokens<R> several_of(int i) const {
    const several<R> p = load_several<R>(policy + i);
    return {.policy = p,
            .ratio = has_old ? p - load_several<R>(old + i) : several<R>(0),
            .reference_ratio = has_reference ? p - load_several<R>(reference + i) : several<R>(0),
            .advantage = load_several<R>(advantage + i)};
  }
  bool finite(std::int64_t i) const {
    for (const R* row : {policy, old, reference, advantage, weight, entropy}) {
      if (!prospect::detail::is_finite(row[i])) return false;
    }
    return measured_entropy == nullptr || prospect::detail::is_finite(measured_entropy[i]);
  }
};

/// The losses of several tokens and their derivatives; those that are not kept are not asked for.
template <std::floating_point R, class Loss, class Kept, class E = token_exponentials>
token_value<several<R>> values_of(const Loss& loss, const tokens<R>& t, const sequence_terms& of,
                                  const Kept& kept, const E& exponentials = {}) {
  if constexpr (lanewise<Loss, R>) {
    return differentiate(loss,
                         token<several<R>>{.policy = t.policy,
                                           .ratio = t.ratio,
                                           .reference_ratio = t.reference_ratio,
                                           .advantage = t.advantage,
                                           .sum = of.sum,
                                           .tokens = of.tokens},
                         exponentials);
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
template <std::floating_point R, class Loss, class Kept>
token_contribution<several<R>> contributions_of(const Loss& loss, const tokens<R>& t,
                                                const sequence_terms& of, const Kept& kept) {
  if constexpr (lanewise<Loss, R>) {
    return contribution(loss, token<several<R>>{.policy = t.policy,
                                                .ratio = t.ratio,
                                                .reference_ratio = t.reference_ratio,
                                                .advantage = t.advantage,
                                                .tokens = of.tokens});
  } else {
    token_contribution<several<R>> values{.value = R(0), .slope = R(0)};
    for (int k = 0; k < lanes<R>; ++k) {
      if (!kept[k]) continue;
      const auto value = contribution(loss, t.lane(k, of));
      values.value.lane[k] = value.value;
      values.slope.lane[k] = value.slope;
    }
    return values;
  }
}

}  // namespace PROSPECT_CPU_ISA
}  // namespace prospect::inline v2::cpu::detail
PROSPECT_STRICT_END
