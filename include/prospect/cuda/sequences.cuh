// Phase 2 on CUDA: sequence log-probabilities in; losses, coefficients, rewards and metrics out,
// the reference point included. The twins of cpu/sequences.hpp, for every loss, built-in or the
// caller's own: the same functor, differentiated in the kernel.
//
// Whatever rows and outputs point to lies on the device. A launcher checks what the host can see
// before any work (`problem` says what is wrong), puts its kernels on `stream` and returns: it
// allocates nothing, waits for nothing, reads nothing back, and can be captured in a graph.
//
// Launchers are static, as their kernels are: a unit launches what was compiled with it, for its
// own architectures and the processor it was meant for.
#pragma once

#include <prospect/cuda/checks.hpp>
#include <prospect/cuda/detail/paired_job.cuh>
#include <prospect/cuda/detail/unpaired_job.cuh>
#include <prospect/cuda/scratch.hpp>
#include <prospect/losses/losses.hpp>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cuda {

namespace detail {

/// With arithmetic in R.
template <class R, class Loss>
static cudaError_t evaluate_in(const Loss& loss, const paired_batch<>& in,
                               const paired_outputs<>& out, const denominator& by,
                               paired_metrics* metrics, scratch space, cudaStream_t stream) {
  if (pairs_problem<R>(loss, in, out, by) != nullptr) return cudaErrorInvalidValue;
  return run_pairs(paired_job<mixed, Loss, R>{loss, in, out, by, metrics}, space, stream);
}
template <class R, class Loss>
static cudaError_t evaluate_in(const Loss& loss, const indexed_pairs& in,
                               const indexed_outputs& out, const denominator& by,
                               paired_metrics* metrics, scratch space, cudaStream_t stream) {
  if (pairs_problem<R>(loss, in, out, by) != nullptr) return cudaErrorInvalidValue;
  named_pairs among{.which = {in.chosen, in.rejected, out.d_policy, in.third},
                    .pairs = in.chosen.size(),
                    .sequences = in.policy.size()};
  if (!out.d_policy.empty()) {
    const auto sequences = static_cast<std::size_t>(among.sequences);
    among.named = space.carve<unsigned>(sequences);
    if (space.counting()) {
      // Whoever counts has no memory yet, and what is wanted must show in the job.
      among.named = reinterpret_cast<unsigned*>(alignof(unsigned));
    } else {
      if (!space.suffices() || !space.aligned()) return cudaErrorInvalidValue;
      if (const cudaError_t e =
              cudaMemsetAsync(among.named, 0, sequences * sizeof(unsigned), stream)) {
        return e;
      }
    }
  }
  return run_pairs(paired_job<mixed, Loss, R>{loss, prospect::detail::any_rows(in),
                                              prospect::detail::any_rows(out), by, metrics, among},
                   space, stream);
}
template <class R, class Loss>
static cudaError_t evaluate_in(const Loss& loss, const unpaired_batch<>& in,
                               const point_source<mixed>& point, const unpaired_outputs<>& out,
                               const denominator& by, unpaired_metrics* metrics, scratch space,
                               cudaStream_t stream) {
  if (completions_problem<R>(loss, in, out, by) != nullptr || problem<R>(point) != nullptr) {
    return cudaErrorInvalidValue;
  }
  return run(unpaired_job<mixed, Loss, R>{loss, in, point, out, by, metrics}, space, stream);
}
template <class R>
static cudaError_t mismatched_kl_in(const mismatched_batch<>& batch, scratch space,
                                    cudaStream_t stream) {
  if (problem<R>(batch) != nullptr || batch.observed == nullptr) return cudaErrorInvalidValue;
  return run(mismatched_job<mixed, R>{batch}, space, stream);
}

}  // namespace detail

/// Evaluates a paired loss, its gradient and its metrics on n pairs.
///
/// Shapes, rows, empty rows and NaN: as cpu::evaluate. One launch for up to 2048 pairs, or 32767
/// on compute capability 9.0 and above; beyond, one launch for the results and one before it where
/// token counts decide about the mean. Rows of one storage type with unit stride that start at a
/// multiple of 16 bytes (8 in 16 bits; `desirable`, 4) are read and written four elements at a
/// time, if all of them do; others give the same bits, in more time. Sums are fp64 in an order that
/// depends on n alone: the same bits in every run, and whichever way a batch is launched.
///
/// @param by a normaliser, or `denominator::over` a count on the device.
/// @param metrics where to write them, on the device; or nullptr.
/// @param space is only taken where there is more than one launch.
/// @returns cudaErrorInvalidValue where `problem` says why, or what the launch returned.
template <class Loss>
static cudaError_t evaluate(const Loss& loss, const paired_batch<>& in, const paired_outputs<>& out,
                            denominator by, paired_metrics* metrics, scratch space,
                            cudaStream_t stream) {
  return prospect::detail::in_fp64(in)
             ? detail::evaluate_in<double>(loss, in, out, by, metrics, space, stream)
             : detail::evaluate_in<float>(loss, in, out, by, metrics, space, stream);
}
/// The same where all rows are made of S: a kernel of its own, without a choice for each row.
template <storage S, class Loss>
static cudaError_t evaluate(const Loss& loss, const paired_batch<S>& in,
                            const paired_outputs<S>& out, denominator by, paired_metrics* metrics,
                            scratch space, cudaStream_t stream) {
  if (problem(loss, in, out, by) != nullptr) return cudaErrorInvalidValue;
  return detail::run_pairs(detail::paired_job<S, Loss>{loss, in, out, by, metrics}, space, stream);
}

/// The same for pairs among n = `in.policy.size()` sequences. The host cannot look at indices: a
/// pair that names no sequence has results that are NaN, and where `d_policy` is wanted, a sequence
/// that is named twice has NaN there. Both are reported as not finite.
///
/// @param space is taken for `d_policy`, too: 4 bytes for a sequence.
template <class Loss>
static cudaError_t evaluate(const Loss& loss, const indexed_pairs& in, const indexed_outputs& out,
                            denominator by, paired_metrics* metrics, scratch space,
                            cudaStream_t stream) {
  return prospect::detail::in_fp64(prospect::detail::any_rows(in))
             ? detail::evaluate_in<double>(loss, in, out, by, metrics, space, stream)
             : detail::evaluate_in<float>(loss, in, out, by, metrics, space, stream);
}

/// Evaluates an unpaired loss on n completions against a reference point (nats), which is
///
///   reference_point    a value of the host's, refused if it is not finite;
///   observed_point     the mean of a (sum, count) on the device, after an all-reduce for example,
///                      clamped for KTO, as it is for BCO; if that is not finite, all results that
///                      depend on it are NaN;
///   mismatched_batch   the clamped mean of the batch's own mismatched rows, in the same launch;
///   cross_class        SimpleKTO's: the other class's clamped mean, through which the gradient
///                      passes (see cpu::evaluate), in the same launch.
///
/// Otherwise as for pairs; large batches take up to three launches.
template <class Loss, class Point>
static cudaError_t evaluate(const Loss& loss, const unpaired_batch<>& in, const Point& point,
                            const unpaired_outputs<>& out, denominator by,
                            unpaired_metrics* metrics, scratch space, cudaStream_t stream) {
  static_assert(std::is_convertible_v<Point, detail::point_source<mixed>>,
                "prospect: the point must be a reference_point, an observed_point, a "
                "mismatched_batch, or cross_class");
  const detail::point_source<mixed> source{point};
  return detail::in_fp64(in, source)
             ? detail::evaluate_in<double>(loss, in, source, out, by, metrics, space, stream)
             : detail::evaluate_in<float>(loss, in, source, out, by, metrics, space, stream);
}
template <storage S, class Loss, class Point>
static cudaError_t evaluate(const Loss& loss, const unpaired_batch<S>& in, const Point& point,
                            const unpaired_outputs<S>& out, denominator by,
                            unpaired_metrics* metrics, scratch space, cudaStream_t stream) {
  static_assert(std::is_convertible_v<Point, detail::point_source<S>>,
                "prospect: the point must be a reference_point, an observed_point, a "
                "mismatched_batch of the same storage type, or cross_class");
  if (problem(loss, in, out, by) != nullptr || problem<compute_t<S>>(point) != nullptr) {
    return cudaErrorInvalidValue;
  }
  return detail::run(detail::unpaired_job<S, Loss>{loss, in, point, out, by, metrics}, space,
                     stream);
}

/// Observes the KL divergence from mismatched rows: element i holds the log-probabilities of some
/// other row's completion under row i's prompt (`mismatched_row`). Rows with 0 tokens are skipped,
/// rows that are not finite left out and counted. Writes the sum of log-ratios and their number to
/// `batch.observed`: all-reduce it where it lies, and give it to `evaluate` as `observed_point`.
template <class S = mixed>
  requires batch_storage<S>
static cudaError_t mismatched_kl(const mismatched_batch<S>& batch, scratch space,
                                 cudaStream_t stream) {
  if constexpr (std::same_as<S, mixed>) {
    const bool fp64 =
        prospect::detail::is_fp64(batch.policy) || prospect::detail::is_fp64(batch.reference);
    return fp64 ? detail::mismatched_kl_in<double>(batch, space, stream)
                : detail::mismatched_kl_in<float>(batch, space, stream);
  } else {
    if (problem<compute_t<S>>(batch) != nullptr || batch.observed == nullptr) {
      return cudaErrorInvalidValue;
    }
    return detail::run(detail::mismatched_job<S>{batch}, space, stream);
  }
}

}  // namespace prospect::inline v2::cuda
PROSPECT_STRICT_END
