// Losses of tokens on the CPU: log-probabilities of tokens in; losses, coefficients and metrics
// out. One pass over the rows, sequence by sequence, for every loss, built-in or the caller's own;
// where a loss reads what its sequence adds up to, over each sequence again while it is in cache.
// What stands here picks the loops; calls and checks are in detail/token_loss_calls.hpp, the loops
// in detail/token_loss_loops.hpp.
#pragma once

#include <prospect/cpu/detail/token_loss_calls.hpp>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cpu {

namespace detail {
inline namespace PROSPECT_CPU_ISA {

/// With the loops that this unit is compiled with.
template <std::floating_point R, class Loss, executor E>
token_metrics evaluate_tokens_in(const Loss& loss, const token_batch& in,
                                 const token_batch_outputs& out, const normaliser& by, E& on) {
  static_assert(token_loss<Loss, R>,
                "prospect: a token batch needs a token loss: a trivially copyable type with "
                "`template <class T> T operator()(const prospect::token<T>&) const` and an "
                "`averaging average`, built from prospect's primitives (marked PROSPECT_HD if it "
                "is to run on CUDA)");
  return evaluate_tokens(compiled_token_kernels<R, Loss>(), loss, in, out, by, on);
}

}  // namespace PROSPECT_CPU_ISA
}  // namespace detail

inline namespace PROSPECT_CPU_ISA {

/// Evaluates a loss of tokens, its gradient and its metrics on n = `in.policy.size()` tokens; n = 0
/// is allowed. What C_t a token's derivative is multiplied by, the loss's `average` says:
///
///   tokens          factor(scored tokens)
///   sequence_means  factor(sequences) / scored tokens of the sequence
///   sequences       factor(sequences)
///
/// with the normaliser's factor, and sequences that have scored tokens. TRL divides by the empty
/// ones too: give their number to `normaliser::over`. Micro-batches of a step add up to what one
/// batch gives, if each is given the same `over(count)`.
///
///   d_policy_t = C_t (w_t dV_t/dlogp_t + slope_t sum_s w_s dV_s/dsum),  d_entropy_t = -coef C_t
///   w_t
///
/// with the slope of what token t contributes to the sum over its sequence, for a loss that reads
/// one. `loss` is w_t (V_t - coef H_t). A NaN or infinity stays in its own token, or for such a
/// loss in its own sequence, and is reported in `nonfinite`.
///
/// Arithmetic is fp64, the log-ratios' too, if the policy, the old one or the reference is, else
/// fp32. Results are rounded once to what they are stored as; sums are fp64.
///
/// Threads are used from 16384 tokens on, through the executor `on`, each for sequences of its own;
/// results are the same bits whatever it is, and however the same sequences are laid out: padded,
/// packed or as ranges. Nothing is allocated. A loss that is `branch_free` is evaluated as vector
/// code (fp32).
///
/// @throws std::invalid_argument, before any work: a row of the wrong size or that describes no
///         memory, a reference or an advantage that is missing and that this loss reads, both rows
///         of advantages, an entropy bonus without the row, an output of stride 0, a layout that
///         does not fit the rows, an invalid hyper-parameter.
template <class Loss, executor E = thread_pool>
token_metrics evaluate(const Loss& loss, const token_batch& in, const token_batch_outputs& out,
                       normaliser by = normaliser::mean(), E& on = thread_pool::shared()) {
  return prospect::detail::in_fp64(in) ? detail::evaluate_tokens_in<double>(loss, in, out, by, on)
                                       : detail::evaluate_tokens_in<float>(loss, in, out, by, on);
}

}  // namespace PROSPECT_CPU_ISA
}  // namespace prospect::inline v2::cpu
PROSPECT_STRICT_END
