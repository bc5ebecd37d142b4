// Losses of tokens on CUDA: log-probabilities of tokens in; losses, coefficients and metrics out.
// The twin of cpu/token_losses.hpp, for every loss, built-in or the caller's own: the same functor,
// differentiated in the kernel.
//
// Rows, streams, scratch and graphs are as in cuda/sequences.cuh.
#pragma once

#include <prospect/cuda/detail/token_loss_job.cuh>
#include <prospect/cuda/scratch.hpp>
#include <prospect/cuda/token_loss_checks.hpp>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cuda {

namespace detail {

/// With arithmetic in R.
template <class R, class Loss>
static cudaError_t evaluate_in(const Loss& loss, const token_batch& in,
                               const token_batch_outputs& out, const denominator& by,
                               token_metrics* metrics, scratch space, cudaStream_t stream) {
  if (token_losses_problem<R>(loss, in, out, by) != nullptr) return cudaErrorInvalidValue;
  return run(token_loss_job<Loss, R>{loss, in, out, by, metrics}, space, stream);
}

}  // namespace detail

/// Evaluates a loss of tokens, its gradient and its metrics on n tokens.
///
/// Shapes, rows, empty rows, averages, coefficients and NaN: as cpu::evaluate, and so is the type
/// of arithmetic. Offsets and ranges of the layout lie on the device, too, and are believed only
/// inside the batch; those that overlap leave undefined which of two sequences a row is written
/// for.
///
/// A block has a sequence at a time. One launch for one sequence, for up to 4 of them and 2048
/// rows, or 64 and 32767 on compute capability 9.0 and above; beyond, one launch for the results
/// and one before it where the mean is over what this batch counts. Sums are fp64 in an order that
/// depends on the sequences alone: the same bits in every run, whichever way a batch is launched,
/// and however the same sequences are laid out.
///
/// @param by a normaliser, or `denominator::over` a count on the device.
/// @param metrics where to write them, on the device; or nullptr.
/// @param space is only taken where there is more than one launch.
/// @returns cudaErrorInvalidValue where `problem` says why, or what the launch returned.
template <class Loss>
static cudaError_t evaluate(const Loss& loss, const token_batch& in, const token_batch_outputs& out,
                            denominator by, token_metrics* metrics, scratch space,
                            cudaStream_t stream) {
  return prospect::detail::in_fp64(in)
             ? detail::evaluate_in<double>(loss, in, out, by, metrics, space, stream)
             : detail::evaluate_in<float>(loss, in, out, by, metrics, space, stream);
}

}  // namespace prospect::inline v2::cuda
PROSPECT_STRICT_END
