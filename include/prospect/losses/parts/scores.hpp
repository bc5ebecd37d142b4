// Score transforms: what stands for the log-ratios of a pair where a policy is held to its
// reference by another divergence than the reverse Kullback-Leibler one (f-DPO, Wang et al. 2024,
// arXiv:2309.16240; TRL's f_divergence_type). `scored` is a loss with such a transform.
#pragma once

#include <prospect/losses/concepts.hpp>
#include <prospect/losses/parts/along.hpp>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2 {

/// s(chosen) - s(rejected), of sums or divided by tokens, with its slopes in the two log-ratios: on
/// its way into a loss, and what comes of it on the way back.
template <number R>
struct score_gap {
  R value, d_chosen, d_rejected;

  /// A pair whose difference this is, whether a loss reads sums or means.
  template <class T>
  PROSPECT_HD constexpr pair<T> as_pair(R margin) const {
    return {.chosen = {.ratio = variable<T>()}, .rejected = {}, .margin = margin};
  }
  /// The loss of that pair, as one of the log-ratios that `p` holds.
  PROSPECT_HD constexpr R outward(const R& loss, const pair<R>&) const { return loss; }
  template <int N>
  PROSPECT_HD constexpr dual<R, N> outward(const dual<R, N>& loss,
                                           const pair<dual<R, N>>& p) const {
    const R slope = loss.partial[0];
    dual<R, N> result = p.chosen.ratio.chain(loss.value, product(slope, d_chosen));
    const dual<R, N> other = p.rejected.ratio.chain(loss.value, product(slope, d_rejected));
    for (int k = 0; k < N; ++k) result.partial[k] += other.partial[k];
    return result;
  }

 private:
  template <class T>
  PROSPECT_HD constexpr T variable() const {
    if constexpr (std::same_as<T, R>) {
      return value;
    } else {
      return T::variable(value, 0);
    }
  }
  /// Far out one factor vanishes faster than the other grows: a flat loss of an infinite score.
  PROSPECT_HD static constexpr R product(R a, R b) {
    return select(a == R(0) || b == R(0), R(0), a * b);
  }
};

/// s(u) = f'(e^u) of an f-divergence for a log-ratio u, with the constant that makes s(0) = 0:
///
///   reverse KL      u                               alpha = 1, the default: the log-ratio itself
///   forward KL      1 - exp(-u)                     alpha = 0
///   alpha           (exp((alpha-1) u) - 1) / (alpha-1)     the paper's alpha is 1 - alpha
///   Jensen-Shannon  log 2 - log(1 + exp(-u))
///
/// Without the constants, as older trainers have it, a loss of means per token is another one.
///
/// Far out exp leaves its type where a pair may still have a finite loss. Two infinities are never
/// subtracted: the difference is formed with both exponents lowered by the same, so that which side
/// leads stays right. In fp64, what is then too large is infinite, with the right sign. In fp32 the
/// larger exponent is held at 80, where TRL holds it, with slope 0 beyond: one pair far out costs
/// some 1e34 and pulls no more, where it would turn the whole step into infinities.
struct score_transform {
  double alpha = 1;
  bool jensen_shannon = false;  ///< alpha is then not read

  PROSPECT_INLINE constexpr const char* problem() const {
    return detail::of_either_sign(alpha) ? nullptr : "alpha must lie in [-1e30, 1e30]";
  }
  PROSPECT_HD constexpr bool is_identity() const { return alpha == 1 && !jensen_shannon; }

  /// s(u), a plain number or a dual.
  template <class T>
  PROSPECT_HD constexpr T operator()(const T& u) const {
    return along(u, [this](const scalar_of_t<T>& at) {
      using R = scalar_of_t<T>;
      const score_gap<R> from_0 = gap(at, R(0), R(1), R(1));
      return value_and_slope<R>{.value = from_0.value, .slope = from_0.d_chosen};
    });
  }

  /// Scores are of whole sequences; a loss of means divides them by their tokens.
  template <class T>
  PROSPECT_HD constexpr score_gap<scalar_of_t<T>> gap(const pair<T>& p, bool of_means) const {
    using R = scalar_of_t<T>;
    return gap(value_of(p.chosen.ratio), value_of(p.rejected.ratio),
               of_means ? p.chosen.tokens : R(1), of_means ? p.rejected.tokens : R(1));
  }

 private:
  template <number R>
  PROSPECT_HD constexpr score_gap<R> gap(R chosen, R rejected, R n_chosen, R n_rejected) const {
    const auto of = [&](value_and_slope<R> w, value_and_slope<R> l) {
      using detail::precise::divide;
      return score_gap<R>{.value = divide(w.value, n_chosen) - divide(l.value, n_rejected),
                          .d_chosen = divide(w.slope, n_chosen),
                          .d_rejected = -divide(l.slope, n_rejected)};
    };
    if (jensen_shannon) return of(half_way(chosen), half_way(rejected));
    if (alpha == 1) return of({chosen, R(1)}, {rejected, R(1)});

    constexpr bool holds = detail::in_fp32<R>;
    const R bound = holds ? 80 : 709;
    const R c = R(alpha - 1);
    // Infinite ones could not be lowered.
    const R x = clamp(c * chosen, R(-1e30), R(1e30));
    const R y = clamp(c * rejected, R(-1e30), R(1e30));
    const R largest = select(x < y, y, x);
    const auto beyond = largest > bound;
    const auto power = [&](R exponent) {
      const R slope = exp(exponent);
      return value_and_slope<R>{
          .value = expm1(select(beyond, exponent - largest + bound, exponent)),
          .slope = holds ? select(exponent > bound, R(0), slope) : slope};
    };
    score_gap<R> result = of(power(x), power(y));
    result.value = detail::precise::divide(result.value, c);
    if constexpr (!holds) {
      const R raised = result.value * exp(largest - bound);
      result.value = select(beyond && result.value != R(0), raised, result.value);
    }
    return result;
  }

  /// log 2 - softplus(-u), to the last digits around 0 too.
  template <number R>
  PROSPECT_HD static constexpr value_and_slope<R> half_way(R u) {
    return {.value = select(u < R(0), u, R(0)) - log1p(R(0.5) * expm1(-abs(u))),
            .slope = sigmoid(-u)};
  }
};

inline constexpr score_transform reverse_kl{};
inline constexpr score_transform forward_kl{.alpha = 0};
inline constexpr score_transform js_divergence{.jensen_shannon = true};
constexpr score_transform alpha_divergence(double alpha) { return {.alpha = alpha}; }

/// A loss of scores: L with s(log-ratio) for every log-ratio, `scored{dpo{}, forward_kl}`. Rewards
/// and metrics stay those of the log-ratios themselves; a margin is one of scores.
template <class L>
struct scored {
  static_assert(score_taking_loss<L>,
                "scores are for a loss that is a function of one difference of log-ratios and says "
                "so by takes_scores: dpo, robust_dpo, hinge, ipo, ipo_sum, exo, sigmoid_norm, "
                "discopop");
  static constexpr bool branch_free = true;

  L loss{};
  score_transform score{};

  PROSPECT_INLINE constexpr const char* problem() const {
    const char* const why = score.problem();
    return why != nullptr ? why : prospect::problem(loss);
  }
  PROSPECT_HD constexpr double reward_scale() const { return prospect::reward_scale(loss); }

  template <class T>
  PROSPECT_HD constexpr T operator()(const pair<T>& p) const {
    const auto gap = score.gap(p, L::takes_scores == score_difference::of_means);
    return gap.outward(loss(gap.template as_pair<T>(p.margin)), p);
  }
};
template <class L>
scored(L, score_transform) -> scored<L>;

namespace detail {

template <class L>
inline constexpr bool is_scored = false;
template <class L>
inline constexpr bool is_scored<scored<L>> = true;

}  // namespace detail

}  // namespace prospect::inline v2
PROSPECT_STRICT_END
