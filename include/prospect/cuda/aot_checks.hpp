// Why a call on AOT makes no sense, as far as the host can see.
#pragma once

#include <prospect/cuda/checks.hpp>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cuda {

namespace detail {

/// Positions are 32 bits wide.
static inline const char* aot_size_problem(std::int64_t n) {
  return n < std::int64_t{1} << 31 ? nullptr : "AOT sorts less than 2^31 pairs";
}

}  // namespace detail

/// Why `aot_margins` would refuse these arguments, or nullptr.
template <class Loss>
static const char* aot_problem(const Loss& loss, const paired_batch<>& in, const any_row& margin) {
  const std::int64_t n = in.policy_chosen.size();
  return detail::first_of(
      detail::aot_size_problem(n), detail::input_problem<"policy_chosen">(in.policy_chosen, n),
      detail::input_problem<"policy_rejected">(in.policy_rejected, n),
      detail::input_problem<"reference_chosen">(in.reference_chosen, n),
      detail::input_problem<"reference_rejected">(in.reference_rejected, n),
      detail::option_problem<"chosen_tokens">(in.chosen_tokens, n),
      detail::option_problem<"rejected_tokens">(in.rejected_tokens, n),
      detail::input_problem<"margin">(margin, n), detail::output_problem<"margin">(margin, n),
      in.margin.empty() ? nullptr : "margin of the batch is given: AOT's takes its place",
      reads_margin<double>(loss) && reads_reference<double>(loss) && !reads_tokens<double>(loss)
          ? nullptr
          : "loss is none of the margin of summed log-ratios, which AOT sorts");
}

/// Why `aot_pairs` would refuse these arguments, or nullptr.
template <class Index>
static const char* aot_problem(const indexed_pairs& in, strided_span<Index> chosen,
                               strided_span<Index> rejected) {
  const std::int64_t n = in.chosen.size();
  const std::int64_t sequences = in.policy.size();
  return detail::first_of(
      detail::aot_size_problem(n), detail::input_problem<"policy">(in.policy, sequences),
      detail::input_problem<"reference">(in.reference, sequences),
      detail::option_problem<"tokens">(in.tokens, sequences),
      in.chosen.problem() == nullptr ? nullptr : "chosen is no row of indices in any memory",
      in.rejected.problem() == nullptr ? nullptr : "rejected is no row of indices in any memory",
      in.rejected.size() == n ? nullptr : "rejected and chosen differ in size",
      detail::input_problem<"chosen">(chosen, n), detail::output_problem<"chosen">(chosen, n),
      detail::input_problem<"rejected">(rejected, n),
      detail::output_problem<"rejected">(rejected, n));
}

}  // namespace prospect::inline v2::cuda
PROSPECT_STRICT_END
