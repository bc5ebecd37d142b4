// Why a call on sequences makes no sense, as far as the host can see: what lies on the device is
// not looked at. The launchers answer cudaErrorInvalidValue, the C API repeats the text.
#pragma once

#include <prospect/core/extent.hpp>
#include <prospect/cuda/batch.hpp>
#include <prospect/cuda/detail/texts.hpp>
#include <prospect/losses/parts/next_token.hpp>
#include <prospect/losses/reads.hpp>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cuda {

namespace detail {

template <class R, class Loss>
PROSPECT_INLINE constexpr void must_be_paired() {
  static_assert(paired_loss<Loss, R>,
                "prospect: a paired batch needs a paired loss: a trivially copyable type with "
                "`template <class T> PROSPECT_HD T operator()(const prospect::pair<T>&) const`, "
                "built from prospect's primitives");
}
template <class R, class Loss>
PROSPECT_INLINE constexpr void must_be_unpaired() {
  static_assert(
      unpaired_loss<Loss, R>,
      "prospect: an unpaired batch needs an unpaired loss: a trivially copyable type with "
      "`template <class T> PROSPECT_HD T operator()(const prospect::unpaired<T>&) const`, "
      "built from prospect's primitives");
}

template <class Loss>
static const char* loss_problem(const Loss& loss, const denominator& by) {
  if (const char* why = prospect::problem(loss)) return why;
  return by.valid() ? nullptr : "normaliser needs a positive, finite count";
}

/// A missing reference is never a zero one, and a margin is never dropped.
template <class R, class Loss>
static const char* reads_problem(const Loss& loss, bool references_given, bool tokens_given,
                                 bool margin_given) {
  if (!references_given && reads_reference<R>(loss)) {
    return "reference is missing, and this loss reads it (a zero reference must be passed)";
  }
  if (!tokens_given && reads_tokens<R>(loss)) {
    return "tokens are missing, and this loss averages over them";
  }
  if constexpr (paired_loss<Loss, R>) {
    if (margin_given && !reads_margin<R>(loss)) {
      return "margin is given, and this loss does not read it (it must use log_ratio_margin() or "
             "mean_log_ratio_margin())";
    }
  }
  return nullptr;
}

/// Completions that a loss regresses have targets, and no others.
template <class R, class Loss>
static const char* target_problem(const Loss& loss, bool given) {
  if (given == reads_target<R>(loss)) return nullptr;
  return given ? "target is given, and this loss does not read it"
               : "target is missing, and this loss regresses on it";
}

/// A third completion that a loss would drop is no more taken than one is left out, and a count of
/// pairs is no denominator of a mean over tokens.
template <class Loss>
static const char* next_tokens_problem(const Loss& loss, const denominator& by, bool third_given,
                                       bool third_tokens_given, bool d_third_given,
                                       bool chosen_tokens_given) {
  const next_token_term term = next_token_of(loss);
  if (third_given && !term.third) {
    return "policy_third (or third) is given, and this loss has no third completion";
  }
  if (!third_given && third_tokens_given) {
    return "third_tokens is given, and there is no third completion";
  }
  if (!third_given && d_third_given) {
    return "d_policy_third is given, and there is no third completion";
  }
  if (term.weight == 0) return nullptr;
  if (!by.knows_tokens()) {
    return "normaliser counts pairs, and the next-token term of this loss is divided by tokens: "
           "say by tokens_over(count) how many (or set its weight to 0)";
  }
  if (term.third && !term.chosen && !third_given) {
    return "policy_third (or third) is missing, and this loss is over a third completion";
  }
  if (!by.counts_tokens()) return nullptr;
  if ((term.chosen && !chosen_tokens_given) || (third_given && !third_tokens_given)) {
    return "tokens are missing (chosen_tokens, third_tokens), and this loss has a next-token term, "
           "a mean over tokens";
  }
  return nullptr;
}

/// Of results per pair.
static inline const char* results_problem(const paired_outputs<>& out, std::int64_t n) {
  return first_of(output_problem<"loss">(out.loss, n),
                  output_problem<"d_policy_chosen">(out.d_policy_chosen, n),
                  output_problem<"d_policy_rejected">(out.d_policy_rejected, n),
                  output_problem<"reward_chosen">(out.reward_chosen, n),
                  output_problem<"reward_rejected">(out.reward_rejected, n),
                  output_problem<"d_policy_third">(out.d_policy_third, n));
}

/// With arithmetic in R.
template <class R, class Loss>
static const char* pairs_problem(const Loss& loss, const paired_batch<>& in,
                                 const paired_outputs<>& out, const denominator& by) {
  must_be_paired<R, Loss>();
  const std::int64_t n = in.policy_chosen.size();
  if (const char* why =
          first_of(loss_problem(loss, by), input_problem<"policy_chosen">(in.policy_chosen, n),
                   input_problem<"policy_rejected">(in.policy_rejected, n),
                   option_problem<"reference_chosen">(in.reference_chosen, n),
                   option_problem<"reference_rejected">(in.reference_rejected, n),
                   option_problem<"chosen_tokens">(in.chosen_tokens, n),
                   option_problem<"rejected_tokens">(in.rejected_tokens, n),
                   option_problem<"weight">(in.weight, n), option_problem<"margin">(in.margin, n),
                   option_problem<"policy_third">(in.policy_third, n),
                   option_problem<"third_tokens">(in.third_tokens, n), results_problem(out, n))) {
    return why;
  }
  if (n == 0) return nullptr;
  return first_of(reads_problem<R>(
                      loss, !in.reference_chosen.empty() && !in.reference_rejected.empty(),
                      !in.chosen_tokens.empty() && !in.rejected_tokens.empty(), !in.margin.empty()),
                  next_tokens_problem(loss, by, !in.policy_third.empty(), !in.third_tokens.empty(),
                                      !out.d_policy_third.empty(), !in.chosen_tokens.empty()));
}

/// Indices lie on the device: one that names no sequence, and a sequence that is named twice, show
/// when the kernel runs.
template <class R, class Loss>
static const char* pairs_problem(const Loss& loss, const indexed_pairs& in,
                                 const indexed_outputs& out, const denominator& by) {
  must_be_paired<R, Loss>();
  const std::int64_t n = in.chosen.size();
  const std::int64_t sequences = in.policy.size();
  if (const char* why = first_of(
          loss_problem(loss, by), sequences == 0 && n > 0 ? "policy is missing" : nullptr,
          input_problem<"policy">(in.policy, sequences),
          option_problem<"reference">(in.reference, sequences),
          option_problem<"tokens">(in.tokens, sequences),
          in.chosen.problem() == nullptr ? nullptr : "chosen is no row of indices in any memory",
          in.rejected.problem() == nullptr ? nullptr
                                           : "rejected is no row of indices in any memory",
          in.rejected.size() == n ? nullptr : "rejected and chosen differ in size",
          in.third.problem() == nullptr ? nullptr : "third is no row of indices in any memory",
          in.third.empty() || in.third.size() == n ? nullptr : "third and chosen differ in size",
          option_problem<"weight">(in.weight, n), option_problem<"margin">(in.margin, n),
          results_problem(prospect::detail::any_rows(out), n),
          output_problem<"d_policy">(out.d_policy, sequences))) {
    return why;
  }
  if (n == 0) return nullptr;
  const bool third = !in.third.empty();
  return first_of(
      reads_problem<R>(loss, !in.reference.empty(), !in.tokens.empty(), !in.margin.empty()),
      next_tokens_problem(loss, by, third, third && !in.tokens.empty(), !out.d_policy_third.empty(),
                          !in.tokens.empty()));
}

template <class R, class Loss>
static const char* completions_problem(const Loss& loss, const unpaired_batch<>& in,
                                       const unpaired_outputs<>& out, const denominator& by) {
  must_be_unpaired<R, Loss>();
  const std::int64_t n = in.policy.size();
  if (const char* why = first_of(
          loss_problem(loss, by), input_problem<"policy">(in.policy, n),
          option_problem<"reference">(in.reference, n), input_problem<"desirable">(in.desirable, n),
          option_problem<"tokens">(in.tokens, n), option_problem<"weight">(in.weight, n),
          option_problem<"target">(in.target, n), output_problem<"loss">(out.loss, n),
          output_problem<"d_policy">(out.d_policy, n), output_problem<"reward">(out.reward, n))) {
    return why;
  }
  if (n == 0) return nullptr;
  return first_of(reads_problem<R>(loss, !in.reference.empty(), !in.tokens.empty(), false),
                  target_problem<R>(loss, !in.target.empty()));
}

}  // namespace detail

/// Why `evaluate` would refuse these arguments, or nullptr.
template <storage S, class Loss>
static const char* problem(const Loss& loss, const paired_batch<S>& in,
                           const paired_outputs<S>& out, const denominator& by) {
  return detail::pairs_problem<compute_t<S>>(loss, prospect::detail::any_rows(in),
                                             prospect::detail::any_rows(out), by);
}
template <class Loss>
static const char* problem(const Loss& loss, const paired_batch<>& in, const paired_outputs<>& out,
                           const denominator& by) {
  return prospect::detail::in_fp64(in) ? detail::pairs_problem<double>(loss, in, out, by)
                                       : detail::pairs_problem<float>(loss, in, out, by);
}
template <class Loss>
static const char* problem(const Loss& loss, const indexed_pairs& in, const indexed_outputs& out,
                           const denominator& by) {
  return prospect::detail::in_fp64(prospect::detail::any_rows(in))
             ? detail::pairs_problem<double>(loss, in, out, by)
             : detail::pairs_problem<float>(loss, in, out, by);
}
template <storage S, class Loss>
static const char* problem(const Loss& loss, const unpaired_batch<S>& in,
                           const unpaired_outputs<S>& out, const denominator& by) {
  return detail::completions_problem<compute_t<S>>(loss, prospect::detail::any_rows(in),
                                                   prospect::detail::any_rows(out), by);
}
template <class Loss>
static const char* problem(const Loss& loss, const unpaired_batch<>& in,
                           const unpaired_outputs<>& out, const denominator& by) {
  return prospect::detail::in_fp64(in) ? detail::completions_problem<double>(loss, in, out, by)
                                       : detail::completions_problem<float>(loss, in, out, by);
}

/// Of the point that `evaluate` is given, for arithmetic in R.
template <std::floating_point R = double>
static const char* problem(const reference_point& point) {
  using prospect::detail::is_finite;
  return is_finite(static_cast<R>(point.z)) && is_finite(point.raw)
             ? nullptr
             : "reference_point must be finite, z and raw";
}
template <std::floating_point R = double>
static const char* problem(const cross_class&) {
  return nullptr;
}
template <std::floating_point R = double>
static const char* problem(const observed_point& point) {
  return point.mismatched == nullptr ? "observed_point.mismatched is null" : nullptr;
}
/// Rows that were forgotten are no batch in which nothing was observed.
template <std::floating_point R = double, class S>
static const char* problem(const mismatched_batch<S>& batch) {
  const std::int64_t n = batch.policy.size();
  if (n == 0) {
    return "mismatched policy is missing: a batch without mismatched completions has rows of 0 "
           "tokens";
  }
  return detail::first_of(detail::input_problem<"mismatched policy">(batch.policy, n),
                          detail::input_problem<"mismatched reference">(batch.reference, n),
                          detail::option_problem<"mismatched tokens">(batch.tokens, n));
}

template <std::floating_point R = double, class S>
static const char* problem(const detail::point_source<S>& point) {
  switch (point.kind) {
    case detail::point_kind::given:
      return problem<R>(point.given);
    case detail::point_kind::observed:
    case detail::point_kind::mean_observed:
      return problem<R>(observed_point{point.observed});
    case detail::point_kind::mismatched:
      return problem<R>(point.mismatched);
    default:
      return nullptr;
  }
}

}  // namespace prospect::inline v2::cuda
PROSPECT_STRICT_END
