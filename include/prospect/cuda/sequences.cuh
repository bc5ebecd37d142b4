// Phase 2 on CUDA: sequence log-probabilities in; losses, coefficients, rewards and metrics out,
// the reference point included. The twins of cpu/sequences.hpp, for every loss, built-in or the
// caller's own: the same functor, differentiated in the kernel.
//
// Whatever rows and outputs point to lies on the device. A launcher checks what the host can see
// before any work (`problem` says what is wrong), puts its kernels on `stream` and returns: it
// allocates nothing, waits for nothing, reads nothing back, and can be captured in a graph.
#pragma once

#include <prospect/cuda/checks.hpp>
#include <prospect/cuda/detail/sequence_jobs.cuh>
#include <prospect/cuda/scratch.hpp>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v1::cuda {

/// Evaluates a paired loss, its gradient and its metrics on n pairs.
///
/// Shapes, empty rows and NaN: as cpu::evaluate. One launch for up to 8192 pairs, or 131072 on
/// compute capability 9.0 and above; beyond, one launch for the results and one before it where
/// token counts decide about the mean. Sums are fp64 in an order that depends on n alone: the same
/// bits in every run, and whichever way a batch is launched.
///
/// @param by a normaliser, or `denominator::over` a count on the device.
/// @param metrics where to write them, on the device; or nullptr.
/// @param space is only taken where there is more than one launch.
/// @returns cudaErrorInvalidValue where `problem` says why, or what the launch returned.
template <storage S, class Loss>
cudaError_t evaluate(const Loss& loss, const paired_batch<S>& in, const paired_outputs<S>& out,
                     denominator by, paired_metrics* metrics, scratch space, cudaStream_t stream) {
  if (problem(loss, in, out, by) != nullptr) return cudaErrorInvalidValue;
  return detail::run(detail::paired_job<S, Loss>{loss, in, out, by, metrics}, space, stream);
}

/// Evaluates an unpaired loss on n completions against a reference point (nats), which is
///
///   reference_point        a value of the host's,
///   observed_point         (sum, count) on the device, after an all-reduce for example,
///   mismatched_batch<S>    the clamped mean of the batch's own mismatched rows, in the same
///   launch, cross_class            SimpleKTO's: the other class's clamped mean, through which the
///   gradient
///                          passes (see cpu::evaluate), in the same launch.
///
/// Otherwise as for pairs; large batches take up to three launches.
template <storage S, class Loss, class Point>
cudaError_t evaluate(const Loss& loss, const unpaired_batch<S>& in, const Point& point,
                     const unpaired_outputs<S>& out, denominator by, unpaired_metrics* metrics,
                     scratch space, cudaStream_t stream) {
  static_assert(std::is_convertible_v<Point, detail::point_source<S>>,
                "prospect: the point must be a reference_point, an observed_point, a "
                "mismatched_batch of the same storage type, or cross_class");
  if (problem(loss, in, out, by) != nullptr || problem(point) != nullptr) {
    return cudaErrorInvalidValue;
  }
  return detail::run(detail::unpaired_job<S, Loss>{loss, in, point, out, by, metrics}, space,
                     stream);
}

/// Observes the KL divergence from mismatched rows: element i holds the log-probabilities of some
/// other row's completion under row i's prompt (`mismatched_row`). Rows with 0 tokens are skipped.
/// Writes the sum of log-ratios and their number to `batch.observed`: all-reduce it where it lies,
/// and give it to `evaluate` as `observed_point`.
template <storage S>
cudaError_t mismatched_kl(const mismatched_batch<S>& batch, scratch space, cudaStream_t stream) {
  if (problem(batch) != nullptr || batch.observed == nullptr) return cudaErrorInvalidValue;
  return detail::run(detail::mismatched_job<S>{batch}, space, stream);
}

}  // namespace prospect::inline v1::cuda
PROSPECT_STRICT_END
