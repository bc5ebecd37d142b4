// Why a call on a batch of tokens makes no sense, as far as the host can see: what lies on the
// device is not looked at. The launcher answers cudaErrorInvalidValue, the C API repeats the text.
#pragma once

#include <prospect/cuda/checks.hpp>
#include <prospect/cuda/token_checks.hpp>
#include <prospect/token_batch.hpp>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cuda {

namespace detail {

/// With arithmetic in R.
template <class R, class Loss>
static const char* token_losses_problem(const Loss& loss, const token_batch& in,
                                        const token_batch_outputs& out, const denominator& by) {
  static_assert(token_loss<Loss, R>,
                "prospect: a token batch needs a token loss: a trivially copyable type with "
                "`template <class T> PROSPECT_HD T operator()(const prospect::token<T>&) const` "
                "and an `averaging average`, built from prospect's primitives");
  const std::int64_t n = in.policy.size();
  const bool any_advantage = !in.advantage.empty() || !in.token_advantage.empty();
  const bool both_advantages = !in.advantage.empty() && !in.token_advantage.empty();
  if (const char* why = first_of(
          loss_problem(loss, by), input_problem<"policy">(in.policy, n),
          layout_problem(in.layout, n), option_problem<"old">(in.old, n),
          option_problem<"reference">(in.reference, n), option_problem<"weight">(in.weight, n),
          in.advantage.empty() || in.advantage.size() == in.layout.sequences()
              ? nullptr
              : "advantage must have an element for each sequence",
          in.advantage.empty() ? nullptr : memory_problem<"advantage">(in.advantage),
          option_problem<"token_advantage">(in.token_advantage, n),
          both_advantages ? "token_advantage is given as well as advantage: which of them is meant?"
                          : nullptr,
          option_problem<"entropy">(in.entropy, n),
          prospect::detail::is_finite(in.entropy_coef) ? nullptr : "entropy_coef must be finite",
          in.targets.empty() ? nullptr : own_problem<"targets">(in.targets, n),
          mask_problem(in.mask, n), output_problem<"loss">(out.loss, n),
          output_problem<"d_policy">(out.d_policy, n),
          output_problem<"d_entropy">(out.d_entropy, n))) {
    return why;
  }
  if (n == 0) return nullptr;
  if (in.entropy_coef != 0 && in.entropy.empty()) {
    return "entropy is missing, and entropy_coef is not 0";
  }
  if (in.layout.sequences() == 0) return nullptr;
  if (in.reference.empty() && reads_reference<R>(loss)) {
    return "reference is missing, and this loss reads it (a zero reference must be passed)";
  }
  if (!any_advantage && reads_advantage<R>(loss)) {
    return "advantage is missing, and this loss reads it: give one for each sequence, or "
           "token_advantage";
  }
  return nullptr;
}

}  // namespace detail

/// Why `evaluate` would refuse these arguments, or nullptr.
template <class Loss>
static const char* problem(const Loss& loss, const token_batch& in, const token_batch_outputs& out,
                           const denominator& by) {
  return prospect::detail::in_fp64(in) ? detail::token_losses_problem<double>(loss, in, out, by)
                                       : detail::token_losses_problem<float>(loss, in, out, by);
}

}  // namespace prospect::inline v2::cuda
PROSPECT_STRICT_END
