// Sums over ranks on CUDA, of what an all-gather has brought together: observations for a reference
// point, counts for a denominator. In the order of the ranks, so that every rank that does this
// gets the same bits, in every run and whatever the collective's algorithm is; a library's own sum
// of floats promises neither. (Whole numbers up to 2^53 are exact in any order.)
//
// Partials of a vocabulary that is split over ranks are put together by `token_log_probs` in
// tokens.cuh.
#pragma once

#include <prospect/batch.hpp>
#include <prospect/cuda/detail/device.cuh>
#include <prospect/cuda/rank_checks.hpp>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cuda {

namespace detail {

inline constexpr int rank_threads = 128;

/// A thread for each column.
template <class T>
static __global__ void __launch_bounds__(rank_threads)
    sum_ranks_kernel(matrix_view<const T> ranks, strided_span<T> sums) {
  const std::int64_t j = blockIdx.x * std::int64_t{rank_threads} + threadIdx.x;
  if (j >= ranks.columns) return;
  T sum = ranks.row(0)[j];
  for (std::int64_t i = 1; i < ranks.rows; ++i) sum += ranks.row(i)[j];
  sums[j] = sum;
}

template <class T>
static cudaError_t sum_ranks(const matrix_view<const T>& ranks, const strided_span<T>& sums,
                             cudaStream_t stream) {
  if (problem(ranks, sums) != nullptr) return cudaErrorInvalidValue;
  if (ranks.columns == 0) return cudaSuccess;
  return launch(&sum_ranks_kernel<T>, (ranks.columns + rank_threads - 1) / rank_threads,
                rank_threads, 0, 1, stream, ranks, sums);
}

}  // namespace detail

/// sums[j] = ((ranks[0][j] + ranks[1][j]) + ranks[2][j]) + ..., for gathered observations: what
/// `observed_point` is given for a batch that is spread over ranks, or metrics.
/// @param ranks [ranks, n], on the device; any pitch.
/// @param sums [n], on the device; may be one of the rows.
/// @returns cudaErrorInvalidValue where `problem` says why, or what the launch returned.
static inline cudaError_t sum_over_ranks(matrix_view<const sum_count> ranks,
                                         strided_span<sum_count> sums, cudaStream_t stream) {
  return detail::sum_ranks(ranks, sums, stream);
}
/// The same for gathered counts or other numbers: what `denominator::over` and `tokens_over` are
/// given.
static inline cudaError_t sum_over_ranks(matrix_view<const double> ranks, strided_span<double> sums,
                                         cudaStream_t stream) {
  return detail::sum_ranks(ranks, sums, stream);
}

}  // namespace prospect::inline v2::cuda
PROSPECT_STRICT_END
