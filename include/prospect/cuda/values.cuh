// Losses of value estimates on CUDA: the twin of cpu/values.hpp, with the launch, the sums and the
// promises of cuda/sequences.cuh.
#pragma once

#include <prospect/cuda/detail/value_job.cuh>
#include <prospect/cuda/scratch.hpp>
#include <prospect/cuda/value_checks.hpp>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cuda {

namespace detail {

/// With arithmetic in R.
template <class R, class Loss>
static cudaError_t evaluate_values_in(const Loss& loss, const value_batch& in,
                                      const value_outputs& out, const denominator& by,
                                      value_metrics* metrics, scratch space, cudaStream_t stream) {
  if (problem(loss, in, out, by) != nullptr) return cudaErrorInvalidValue;
  return run(value_job<Loss, R>{loss, in, out, by, metrics}, space, stream);
}

}  // namespace detail

/// Evaluates a loss of value estimates, its gradient and its metrics on n tokens, as cpu::evaluate
/// does.
///
/// @param by a normaliser, or `denominator::over` a count on the device.
/// @param metrics where to write them, on the device; or nullptr.
/// @param space is only taken where there is more than one launch.
/// @returns cudaErrorInvalidValue where `problem` says why, or what the launch returned.
template <class Loss>
static cudaError_t evaluate(const Loss& loss, const value_batch& in, const value_outputs& out,
                            denominator by, value_metrics* metrics, scratch space,
                            cudaStream_t stream) {
  return prospect::detail::in_fp64(in)
             ? detail::evaluate_values_in<double>(loss, in, out, by, metrics, space, stream)
             : detail::evaluate_values_in<float>(loss, in, out, by, metrics, space, stream);
}

}  // namespace prospect::inline v2::cuda
PROSPECT_STRICT_END
