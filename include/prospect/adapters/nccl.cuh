// NCCL on CUDA: a collective and what the library makes of it, in one call. nccl.hpp says what is
// gathered, and why nothing is reduced.
//
// Not between ncclGroupStart and ncclGroupEnd, where a collective is not on the stream before the
// group ends: there `all_gather`, and behind the group what follows it here.
//
// Every rank of the communicator makes the same calls in the same order, with the same sizes. What
// is wrong with arguments is refused before the collective: who refuses on one rank alone leaves
// the others waiting, as with any of NCCL's calls.
#pragma once

#include <prospect/adapters/nccl.hpp>
#include <prospect/cuda/batch.hpp>
#include <prospect/cuda/ranks.cuh>
#include <prospect/cuda/tokens.cuh>

#include <type_traits>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::adapters {

namespace detail {

/// First the collective, then what follows it on the stream.
template <gathered_value T, class Then>
static nccl_status gather_then(const char* problem, strided_span<const T> mine, matrix_view<T> all,
                               ncclComm_t communicator, cudaStream_t stream, const Then& then) {
  if (problem != nullptr) return {.cuda = cudaErrorInvalidValue};
  if (const ncclResult_t e = all_gather<T>(mine, all, communicator, stream); e != ncclSuccess) {
    return {.nccl = e};
  }
  return {.cuda = then()};
}

}  // namespace detail

/// Log-probabilities of the target tokens where the vocabulary is split over the ranks of a
/// communicator: the same bits on each of them.
///
/// @param mine [tokens], this rank's `vocabulary_partials` or `head_vocabulary_partials`.
/// @param parts [ranks, tokens]: where those of all ranks go.
/// @param targets,out,mask as in cuda::token_log_probs of parts.
/// @returns `cuda` is cudaErrorInvalidValue where cuda::problem(parts, targets, out, mask) says
/// why,
///          `nccl` is ncclInvalidArgument where `problem(mine, parts, ranks, rank)` does; otherwise
///          what NCCL and the launch returned.
static inline nccl_status token_log_probs(strided_span<const vocabulary_partial> mine,
                                          matrix_view<vocabulary_partial> parts, index_row targets,
                                          const token_outputs<float>& out, mask_row mask,
                                          ncclComm_t communicator, cudaStream_t stream) {
  return detail::gather_then<vocabulary_partial>(
      cuda::problem(matrix_view<const vocabulary_partial>{parts}, targets, out, mask), mine, parts,
      communicator, stream,
      [&] { return cuda::token_log_probs(parts, targets, out, mask, stream); });
}

/// sums[j] = the sum of what all ranks call mine[j], in the order of the ranks: observations, for
/// `observed_point`, or numbers, for `denominator::over`.
///
/// @param mine [n]; an `observation` of `mismatched_kl` is {observed, 1}.
/// @param all [ranks, n]: where those of all ranks go.
/// @param sums [n]; may be `mine`, or a row of `all`.
template <class T>
  requires(std::same_as<T, double> || std::same_as<T, sum_count>)
static nccl_status sum_over_ranks(strided_span<const std::type_identity_t<T>> mine,
                                  matrix_view<T> all, strided_span<std::type_identity_t<T>> sums,
                                  ncclComm_t communicator, cudaStream_t stream) {
  return detail::gather_then<T>(cuda::problem(matrix_view<const T>{all}, sums), mine, all,
                                communicator, stream,
                                [&] { return cuda::sum_over_ranks(all, sums, stream); });
}

}  // namespace prospect::inline v2::adapters
PROSPECT_STRICT_END
