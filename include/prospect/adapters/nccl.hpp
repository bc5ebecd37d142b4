// NCCL: brings together on every rank what each rank of a communicator has, for hosts that split
// the vocabulary or the batch over devices. Whoever includes this links NCCL.
//
// Bits matter, so numbers are gathered as they are, and added up by the library in the order of the
// ranks: every rank then has the same result, and the next run as well. ncclAllReduce adds in an
// order that depends on the number of ranks, the topology and the algorithm it picks. (It is as
// good for whole numbers up to 2^53, which are exact in any order.)
//
//   vocabulary    each rank's `vocabulary_partials` (or `head_vocabulary_partials`), gathered to
//                 [ranks, tokens]; then `token_log_probs` of the parts. Rank r of the communicator
//                 has the r-th part of the vocabulary.
//   batch         each rank's `mismatched_kl`, gathered to [ranks, 1]; then `sum_over_ranks`, and
//                 `evaluate` with `observed_point`. So with sums for metrics.
//   denominators  each rank's count, or counts, gathered to [ranks, n]; then `sum_over_ranks`, and
//                 `denominator::over(&sums[0]).tokens_over(&sums[1])`.
//
// nccl.cuh has both steps in one call. They are apart here for hosts that put several collectives
// into one group: within ncclGroupStart and ncclGroupEnd nothing is on the stream yet.
//
// Memory is the caller's, on the communicator's device. Nothing is allocated or waited for by the
// library, and a call can be captured in a graph where NCCL's can.
#pragma once

#include <prospect/batch.hpp>
#include <prospect/core/extent.hpp>
#include <prospect/core/matrix_view.hpp>
#include <prospect/core/strided_span.hpp>
#include <prospect/vocabulary.hpp>

#include <nccl.h>

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <type_traits>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::adapters {

/// What ranks gather: values that consist of doubles and nothing else.
template <class T>
concept gathered_value =
    std::same_as<T, double> || std::same_as<T, sum_count> || std::same_as<T, vocabulary_partial>;

static_assert(sizeof(sum_count) == 2 * sizeof(double) && std::is_trivially_copyable_v<sum_count>);
static_assert(sizeof(vocabulary_partial) == 10 * sizeof(double) &&
              std::is_trivially_copyable_v<vocabulary_partial>);

/// Why `all_gather` would refuse these arguments on a communicator of so many ranks, of which this
/// is number `rank`; or nullptr.
template <gathered_value T>
PROSPECT_INLINE const char* problem(const strided_span<const T>& mine, const matrix_view<T>& all,
                                    int ranks, int rank) noexcept {
  const std::int64_t n = mine.size();
  if (n > 1 && mine.stride() != 1) return "mine must lie in one piece";
  if (all.rows != ranks) return "all must have a row for each rank of the communicator";
  if (all.columns != n) return "all must have a column for each element of mine";
  if (all.rows > 1 && all.pitch != all.columns) return "all must lie in one piece";
  if (prospect::detail::view_problem(mine) != nullptr) {
    return "mine has no data, is misaligned, or larger than any memory";
  }
  if (prospect::detail::view_problem(all) != nullptr) {
    return "all has no data, is misaligned, or larger than any memory";
  }
  if (n == 0) return nullptr;
  const std::less<const T*> before;
  const T* const first = all.data;
  const bool apart = !before(first, mine.data() + n) || !before(mine.data(), first + ranks * n);
  if (!apart && mine.data() != first + rank * n) {
    return "mine may lie in all, but then as this rank's row";
  }
  return nullptr;
}

/// all[r] becomes what rank r calls `mine`, on every rank of the communicator.
///
/// @param mine [n], the same n on every rank, in one piece; row r of `all` on rank r saves NCCL a
///        copy.
/// @param all [ranks, n], in one piece: the pitch is n.
/// @returns ncclInvalidArgument where `problem` says why, or what NCCL returned. On a communicator
///          that does not block that may be ncclInProgress: what uses `all` is to be put on the
///          stream once ncclCommGetAsyncError no longer says so.
template <gathered_value T>
PROSPECT_INLINE ncclResult_t all_gather(strided_span<const std::type_identity_t<T>> mine,
                                        matrix_view<T> all, ncclComm_t communicator,
                                        cudaStream_t stream) {
  if (communicator == nullptr) return ncclInvalidArgument;
  int ranks = 0, rank = 0;
  if (const ncclResult_t e = ncclCommCount(communicator, &ranks); e != ncclSuccess) return e;
  if (const ncclResult_t e = ncclCommUserRank(communicator, &rank); e != ncclSuccess) return e;
  if (problem<T>(mine, all, ranks, rank) != nullptr) return ncclInvalidArgument;
  if (mine.empty()) return ncclSuccess;
  const std::size_t doubles = static_cast<std::size_t>(mine.size()) * (sizeof(T) / sizeof(double));
  return ncclAllGather(mine.data(), all.data, doubles, ncclFloat64, communicator, stream);
}

/// What a call says that asks both NCCL and CUDA: each in its own code.
struct nccl_status {
  ncclResult_t nccl = ncclSuccess;
  cudaError_t cuda = cudaSuccess;  ///< of what follows the collective

  /// Whether everything is on the stream. It is not yet where `nccl` is ncclInProgress.
  constexpr bool done() const noexcept { return nccl == ncclSuccess && cuda == cudaSuccess; }
  PROSPECT_INLINE const char* text() const {
    return nccl != ncclSuccess ? ncclGetErrorString(nccl) : cudaGetErrorString(cuda);
  }
};

}  // namespace prospect::inline v2::adapters
PROSPECT_STRICT_END
