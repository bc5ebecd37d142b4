// What goes into a batch and what comes out of it: views of rows, the normaliser, and metrics as
// (sum, count). Shared by every back end; holds no loop over data.
#pragma once

#include <prospect/any_row.hpp>
#include <prospect/core/float_mode.hpp>
#include <prospect/layout.hpp>

#include <array>
#include <cstdint>
#include <string_view>
#include <type_traits>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2 {

/// A sum and the number of terms in it. Ranks and micro-batches add up exactly: all-reduce both
/// members, then divide once. A mean of means is never taken.
struct sum_count {
  double sum = 0;
  double count = 0;

  PROSPECT_HD constexpr void add(double x) noexcept { *this += {.sum = x, .count = 1}; }
  PROSPECT_HD constexpr sum_count& operator+=(const sum_count& other) noexcept {
    sum = detail::in_default_mode(detail::plus{}, sum, other.sum);
    count = detail::in_default_mode(detail::plus{}, count, other.count);
    return *this;
  }
  /// False for an absent class: leave the metric out, do not report 0.
  PROSPECT_HD constexpr bool present() const noexcept { return count > 0; }
  /// The mean, or 0 where nothing was counted.
  PROSPECT_HD constexpr double mean() const noexcept {
    if (!(count > 0)) return 0.0;
    return detail::in_default_mode(detail::quotient{}, sum, count);
  }
};

/// What the summed loss is divided by before its gradient is handed out. Explicit, so that gradient
/// accumulation and data parallelism are exact: give every micro-batch of a step the same
/// `over(global_count)`. Class weights never enter the denominator.
///
/// A loss with a next-token term (losses/parts/next_token.hpp) has two denominators, because that
/// term is a mean over tokens: `over(pairs).tokens_over(tokens)`. `over` alone is refused for it.
class normaliser {
 public:
  /// Coefficients are dL_i/dP_i as they are.
  PROSPECT_INLINE static constexpr normaliser sum() noexcept {
    return {{by::nothing, 1}, {by::nothing, 1}};
  }
  /// Divided by the number of counted examples of this call (TRL, HALOs), and next-token terms by
  /// the number of their tokens.
  PROSPECT_INLINE static constexpr normaliser mean() noexcept {
    return {{by::local_count, 1}, {by::local_count, 1}};
  }
  /// Divided by a count known to the caller, e.g. summed over ranks and micro-batches. Must be
  /// positive. A loss scale s is `over(count / s)`.
  PROSPECT_INLINE static constexpr normaliser over(double count) noexcept {
    return {{by::given_count, count}, {by::nobody, 1}};
  }
  /// The same, but next-token terms divided by this count of tokens: of the counted pairs, those of
  /// the completions that the term is over. Must be positive.
  PROSPECT_INLINE constexpr normaliser tokens_over(double count) const noexcept {
    return {examples_, {by::given_count, count}};
  }

  /// False if `over` or `tokens_over` was given no positive, finite number.
  PROSPECT_INLINE constexpr bool valid() const noexcept {
    return examples_.valid() && tokens_.valid();
  }
  /// Whether the factor depends on what is counted in this call.
  PROSPECT_HD constexpr bool counts() const noexcept { return examples_.counts(); }
  /// The factor on losses and coefficients, for a batch with this many counted examples.
  PROSPECT_HD constexpr double factor(double local_count) const noexcept {
    if (counts() && !(local_count > 0)) return 0.0;
    return detail::in_default_mode(detail::quotient{}, 1.0, examples_.of(local_count));
  }

  /// Whether it says what next-token terms are divided by.
  PROSPECT_HD constexpr bool knows_tokens() const noexcept { return tokens_.what != by::nobody; }
  /// Whether that is the number of tokens in this call.
  PROSPECT_HD constexpr bool counts_tokens() const noexcept { return tokens_.counts(); }
  /// What makes of a sum over tokens its part of the loss of a pair, so that `factor` times the sum
  /// over pairs has that sum over its own denominator.
  PROSPECT_HD constexpr double token_share(double local_count, double local_tokens) const noexcept {
    const double examples = examples_.of(local_count);
    const double tokens = tokens_.of(local_tokens);
    if (!(examples > 0 && tokens > 0)) return 0.0;
    return detail::in_default_mode(detail::quotient{}, examples, tokens);
  }

 private:
  enum class by { nothing, local_count, given_count, nobody };
  struct divisor {
    by what;
    double count;

    PROSPECT_HD constexpr bool valid() const noexcept { return count >= 1e-300 && count <= 1e300; }
    PROSPECT_HD constexpr bool counts() const noexcept { return what == by::local_count; }
    PROSPECT_HD constexpr double of(double local_count) const noexcept {
      return counts() ? local_count : count;
    }
  };
  PROSPECT_HD constexpr normaliser(divisor examples, divisor tokens) noexcept
      : examples_{examples}, tokens_{tokens} {}
  divisor examples_, tokens_;
};

/// In place of a storage type: the rows of a batch hold what they hold. Policy, reference, weights
/// and results may differ; arithmetic is fp64 if a policy or reference row is, else fp32.
struct mixed {};

/// What a batch of S is made of.
template <class S>
concept batch_storage = storage<S> || std::same_as<S, mixed>;
template <batch_storage S>
using input_row = std::conditional_t<std::same_as<S, mixed>, const_any_row, strided_span<const S>>;
template <batch_storage S>
using result_row = std::conditional_t<std::same_as<S, mixed>, any_row, strided_span<S>>;

/// n preference pairs as rows of n summed log-probabilities (nats). Chosen and rejected may be the
/// two halves of one row: use `strided_span::slice`.
///
/// `*_tokens` hold the numbers of scored tokens and are required by losses that average over
/// tokens. Where they are given, a pair with an empty side has weight 0: its loss and coefficients
/// are 0 and it is not counted. The reference rows are required by every loss that reads a
/// log-ratio; reference-free is a property of a loss, never of a missing row.
///
/// A `weight` multiplies its pair's loss and coefficients and never enters a denominator or another
/// metric. Any number is taken, negative ones too; 0 makes loss and coefficients exactly 0,
/// whatever the pair holds, and leaves the pair counted; one that is not finite spoils its own
/// pair, which `nonfinite` reports.
///
/// A `margin` is an offset in nats that the chosen completion must lead by: it is subtracted from
/// the difference of log-ratios that the loss sees, `pair::log_ratio_margin()`, before beta. Where
/// others subtract a margin gamma after beta (ODPO's, Llama-2's reward margin: sigmoid(beta delta -
/// gamma)) it is gamma / beta. A loss over means per token, such as IPO, sees it subtracted from
/// the difference of the means, and so in nats per token. A loss that looks at neither difference
/// is refused one. Rewards and accuracies know no margin.
///
/// A third completion is read by next-token terms alone: TPO's gold completion, or the prompt of
/// the chosen one, which TRL's ORPO counts in. Where its number of tokens is 0, or its pair is not
/// counted, it adds nothing.
template <class S = mixed>
  requires batch_storage<S>
struct paired_batch {
  input_row<S> policy_chosen{};
  input_row<S> policy_rejected{};
  input_row<S> reference_chosen{};
  input_row<S> reference_rejected{};
  strided_span<const std::int32_t> chosen_tokens{};
  strided_span<const std::int32_t> rejected_tokens{};
  input_row<S> weight{};  ///< empty: 1 each
  input_row<S> margin{};  ///< empty: 0 each
  input_row<S> policy_third{};
  strided_span<const std::int32_t> third_tokens{};
};

/// Where results for n pairs go; an empty row is not written. Outputs may not overlap inputs.
template <class S = mixed>
  requires batch_storage<S>
struct paired_outputs {
  result_row<S> loss{};             ///< per pair, times its weight; never reduced or normalised
  result_row<S> d_policy_chosen{};  ///< dL/dP, times the normaliser's factor
  result_row<S> d_policy_rejected{};
  result_row<S> reward_chosen{};  ///< beta x log-ratio
  result_row<S> reward_rejected{};
  result_row<S> d_policy_third{};
};

/// Pairs among n sequences: `policy`, `reference` and `tokens` are rows of n, `chosen` and
/// `rejected` name the two sequences of each pair, `third` its third completion where there is one,
/// `weight` and `margin` are per pair. Everything else as in a paired batch.
struct indexed_pairs {
  const_any_row policy{};
  const_any_row reference{};
  strided_span<const std::int32_t> tokens{};
  index_row chosen{};
  index_row rejected{};
  const_any_row weight{};
  const_any_row margin{};
  index_row third{};
};

/// Where their results go: per pair, and the coefficients of the n sequences. Those of a sequence
/// that is in no pair are 0. `d_policy` has one place for a sequence: if one is in several pairs,
/// ask for the coefficients per pair, and add them up.
struct indexed_outputs {
  any_row loss{};
  any_row d_policy{};  ///< of n sequences
  any_row d_policy_chosen{};
  any_row d_policy_rejected{};
  any_row reward_chosen{};
  any_row reward_rejected{};
  any_row d_policy_third{};
};

/// n completions with binary feedback, in any order and any mix of classes. Weights as for pairs;
/// in the attached terms of `cross_class`, what a row pulls at the other class's mean is weighted
/// too.
///
/// A `target` is a number of each completion that losses such as A*PO's regress on. It is required
/// by losses that read it, and every other one is refused it.
template <class S = mixed>
  requires batch_storage<S>
struct unpaired_batch {
  input_row<S> policy{};
  input_row<S> reference{};
  strided_span<const std::uint8_t> desirable{};  ///< 0 = thumb down, anything else = thumb up
  strided_span<const std::int32_t> tokens{};
  input_row<S> weight{};  ///< empty: 1 each
  input_row<S> target{};
};

/// Where results for n completions go; an empty row is not written.
template <class S = mixed>
  requires batch_storage<S>
struct unpaired_outputs {
  result_row<S> loss{};
  result_row<S> d_policy{};
  result_row<S> reward{};
};

/// n tokens' value estimates. Tokens that the mask leaves out are not read.
struct value_batch {
  const_any_row value{};
  const_any_row old_value{};
  const_any_row returns{};
  mask_row mask{};  ///< empty: all count
};

/// Where results for n value estimates go; an empty row is not written.
struct value_outputs {
  any_row loss{};     ///< per token; never reduced or normalised
  any_row d_value{};  ///< dL/dvalue, times the normaliser's factor
};

namespace detail {

/// What the back ends work on: a paired batch of any rows, of which the sides of a pair may be
/// named by indices, and coefficients may go to a row of sequences.
struct pair_indices {
  index_row chosen, rejected;
  any_row d_policy;
  index_row third{};

  PROSPECT_HD constexpr bool given() const noexcept { return chosen.size() != 0; }
};

template <class S>
PROSPECT_INLINE constexpr paired_batch<> any_rows(const paired_batch<S>& in) noexcept {
  return {.policy_chosen = in.policy_chosen,
          .policy_rejected = in.policy_rejected,
          .reference_chosen = in.reference_chosen,
          .reference_rejected = in.reference_rejected,
          .chosen_tokens = in.chosen_tokens,
          .rejected_tokens = in.rejected_tokens,
          .weight = in.weight,
          .margin = in.margin,
          .policy_third = in.policy_third,
          .third_tokens = in.third_tokens};
}
PROSPECT_INLINE constexpr paired_batch<> any_rows(const indexed_pairs& in) noexcept {
  const bool third = in.third.size() != 0;
  return {.policy_chosen = in.policy,
          .policy_rejected = in.policy,
          .reference_chosen = in.reference,
          .reference_rejected = in.reference,
          .chosen_tokens = in.tokens,
          .rejected_tokens = in.tokens,
          .weight = in.weight,
          .margin = in.margin,
          .policy_third = third ? in.policy : const_any_row{},
          .third_tokens = third ? in.tokens : strided_span<const std::int32_t>{}};
}
template <class S>
PROSPECT_INLINE constexpr paired_outputs<> any_rows(const paired_outputs<S>& out) noexcept {
  return {.loss = out.loss,
          .d_policy_chosen = out.d_policy_chosen,
          .d_policy_rejected = out.d_policy_rejected,
          .reward_chosen = out.reward_chosen,
          .reward_rejected = out.reward_rejected,
          .d_policy_third = out.d_policy_third};
}
PROSPECT_INLINE constexpr paired_outputs<> any_rows(const indexed_outputs& out) noexcept {
  return {.loss = out.loss,
          .d_policy_chosen = out.d_policy_chosen,
          .d_policy_rejected = out.d_policy_rejected,
          .reward_chosen = out.reward_chosen,
          .reward_rejected = out.reward_rejected,
          .d_policy_third = out.d_policy_third};
}
template <class S>
PROSPECT_INLINE constexpr unpaired_batch<> any_rows(const unpaired_batch<S>& in) noexcept {
  return {.policy = in.policy,
          .reference = in.reference,
          .desirable = in.desirable,
          .tokens = in.tokens,
          .weight = in.weight,
          .target = in.target};
}
template <class S>
PROSPECT_INLINE constexpr unpaired_outputs<> any_rows(const unpaired_outputs<S>& out) noexcept {
  return {.loss = out.loss, .d_policy = out.d_policy, .reward = out.reward};
}

PROSPECT_INLINE constexpr bool is_fp64(const const_any_row& row) noexcept {
  return !row.empty() && row.type() == dtype::f64;
}
/// Whether arithmetic on a batch is fp64.
PROSPECT_INLINE constexpr bool in_fp64(const paired_batch<>& in) noexcept {
  return is_fp64(in.policy_chosen) || is_fp64(in.policy_rejected) || is_fp64(in.reference_chosen) ||
         is_fp64(in.reference_rejected) || is_fp64(in.policy_third);
}
PROSPECT_INLINE constexpr bool in_fp64(const unpaired_batch<>& in) noexcept {
  return is_fp64(in.policy) || is_fp64(in.reference);
}
PROSPECT_INLINE constexpr bool in_fp64(const value_batch& in) noexcept {
  return is_fp64(in.value) || is_fp64(in.old_value) || is_fp64(in.returns);
}

}  // namespace detail

/// A metric under the name Hugging Face trainers log it by.
struct named_metric {
  std::string_view name;
  sum_count value;
};

/// Metrics of a paired batch. Rewards use the raw log-ratio, whatever the loss made of it.
struct paired_metrics {
  sum_count loss;
  sum_count rewards_chosen;
  sum_count rewards_rejected;
  sum_count rewards_margins;
  sum_count rewards_accuracies;  ///< chosen > rejected, strictly: a tie is no success
  sum_count logps_chosen;
  sum_count logps_rejected;
  /// Pairs of which a log-probability, log-ratio, weight, margin, loss or coefficient is NaN or
  /// infinite (the latter two as they are stored), of all counted pairs. An input counts even where
  /// the loss makes a number of it, as sigmoid does of -inf.
  sum_count nonfinite;
  std::int64_t first_nonfinite = -1;  ///< index of the first of them in this call, or -1
  double total = 0;                   ///< the scalar loss: the sum times the normaliser's factor

  PROSPECT_INLINE constexpr std::array<named_metric, 8> named() const {
    return {{{"loss", loss},
             {"rewards/chosen", rewards_chosen},
             {"rewards/rejected", rewards_rejected},
             {"rewards/margins", rewards_margins},
             {"rewards/accuracies", rewards_accuracies},
             {"logps/chosen", logps_chosen},
             {"logps/rejected", logps_rejected},
             {"nonfinite", nonfinite}}};
  }
};

/// Metrics of an unpaired batch. Chosen stands for desirable and rejected for undesirable, as in
/// TRL; a class that is absent has count 0. There is no margin here, because a difference of class
/// means is not a (sum, count): subtract the two means once they are reduced.
struct unpaired_metrics {
  sum_count loss;
  sum_count rewards_chosen;
  sum_count rewards_rejected;
  sum_count logps_chosen;
  sum_count logps_rejected;
  /// The reference point that was given, clamped; nats. Absent where nothing was observed for it,
  /// and where the loss reads none.
  sum_count kl;
  sum_count kl_unclamped;  ///< the same before clamping: below 0 it silently switches z off
  sum_count nonfinite;     ///< completions, as for pairs
  std::int64_t first_nonfinite = -1;
  double total = 0;

  PROSPECT_INLINE constexpr std::array<named_metric, 8> named() const {
    return {{{"loss", loss},
             {"rewards/chosen", rewards_chosen},
             {"rewards/rejected", rewards_rejected},
             {"logps/chosen", logps_chosen},
             {"logps/rejected", logps_rejected},
             {"kl", kl},
             {"kl_unclamped", kl_unclamped},
             {"nonfinite", nonfinite}}};
  }
};

/// Metrics of value estimates.
struct value_metrics {
  sum_count loss;
  sum_count nonfinite;  ///< tokens of which an input, the loss or the coefficient is not finite
  std::int64_t first_nonfinite = -1;
  double total = 0;

  PROSPECT_INLINE constexpr std::array<named_metric, 2> named() const {
    return {{{"loss", loss}, {"nonfinite", nonfinite}}};
  }
};

}  // namespace prospect::inline v2
PROSPECT_STRICT_END
