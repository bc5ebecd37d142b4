// Sums over tokens and the way back by a reducer (LD-DPO, humanline), the lengths that pairs have
// in common, and weights that follow from token log-probs (WPO), on CUDA. The twins of
// cpu/token_reducers.hpp; what cuda/tokens.cuh says of launchers holds here.
//
// What shows on the device alone spoils what depends on it and nothing else: a sequence with a
// negative `public_tokens` sums to NaN, a pair whose index names no sequence weighs NaN.
#pragma once

#include <prospect/cuda/detail/device.cuh>
#include <prospect/cuda/detail/reducer_kernels.cuh>
#include <prospect/cuda/token_checks.hpp>

#include <algorithm>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cuda {

/// Reduces the scored tokens of each sequence as `by` says, in fp64 and in an order that depends on
/// the sequence alone. Tokens with target -100 or mask 0 are skipped, whatever they hold. A
/// sequence without scored tokens sums to 0 and counts 0.
static inline cudaError_t sequence_sums(const token_reducer& by, index_row targets,
                                        const sequence_layout& layout, const sequence_outputs& out,
                                        mask_row mask, cudaStream_t stream) {
  if (problem(by, targets, layout, out, mask) != nullptr) return cudaErrorInvalidValue;
  if (layout.sequences() == 0) return cudaSuccess;
  return detail::launch(&detail::reduced_sums_kernel<detail::layout_threads>, layout.sequences(),
                        detail::layout_threads, 0, 1, stream, by,
                        prospect::detail::scored_targets{targets, mask}, layout, out);
}

/// The reverse of it by the same reducer: gives every scored token dL/dS of its sequence times the
/// token's weight, 0 where a clamp holds the token, and 0 to rows that are not scored, those of no
/// sequence included.
static inline cudaError_t spread(const token_reducer& by, const const_any_row& d_sequence,
                                 index_row targets, const sequence_layout& layout, any_row d_token,
                                 mask_row mask, cudaStream_t stream) {
  if (problem(by, d_sequence, targets, layout, d_token, mask) != nullptr) {
    return cudaErrorInvalidValue;
  }
  if (targets.size() == 0) return cudaSuccess;
  return detail::launch(&detail::reduced_spread_kernel<detail::layout_threads>,
                        std::max<std::int64_t>(1, layout.sequences()), detail::layout_threads, 0, 1,
                        stream, by, d_sequence, prospect::detail::scored_targets{targets, mask},
                        layout, d_token);
}

/// The public length of LD-DPO: for each sequence that is in a pair the smaller of the two token
/// counts of the pair, for the others their own count, and -1, which spoils it, for one that is in
/// more than one pair or whose partner is no sequence.
static inline cudaError_t public_tokens(strided_span<const std::int32_t> tokens,
                                        const sequence_pairs& pairs, strided_span<std::int32_t> out,
                                        cudaStream_t stream) {
  if (problem(tokens, pairs, out) != nullptr) return cudaErrorInvalidValue;
  if (tokens.size() == 0) return cudaSuccess;
  constexpr int per_block = detail::layout_threads / 32;
  return detail::launch(&detail::public_tokens_kernel<detail::layout_threads>,
                        (tokens.size() + per_block - 1) / per_block, detail::layout_threads, 0, 1,
                        stream, tokens, pairs, out);
}

/// The weight of each sequence in WPO (Zhou et al. 2024, arXiv:2406.11827, eq. 2),
///
///   w = exp( (1 / n) sum_t [log p(y_t) - log sum_v p_v^2] )
///
/// over its n scored tokens; 1 without any. Both rows are those of `token_log_probs`, of the
/// policy.
static inline cudaError_t wpo_weights(const const_any_row& log_prob,
                                      const const_any_row& sum_squares, index_row targets,
                                      const sequence_layout& layout, any_row weight, mask_row mask,
                                      cudaStream_t stream) {
  if (problem(log_prob, sum_squares, targets, layout, weight, mask) != nullptr) {
    return cudaErrorInvalidValue;
  }
  if (layout.sequences() == 0) return cudaSuccess;
  return detail::launch(&detail::wpo_weights_kernel<detail::layout_threads>, layout.sequences(),
                        detail::layout_threads, 0, 1, stream, log_prob, sum_squares,
                        prospect::detail::scored_targets{targets, mask}, layout, weight);
}

/// The weight of a pair in WPO, the product of those of its sequences: the `weight` of a paired
/// batch, or of pairs by index.
static inline cudaError_t pair_weights(const const_any_row& weight, const sequence_pairs& pairs,
                                       any_row out, cudaStream_t stream) {
  if (problem(weight, pairs, out) != nullptr) return cudaErrorInvalidValue;
  if (out.size() == 0) return cudaSuccess;
  return detail::launch(&detail::pair_weights_kernel<detail::layout_threads>,
                        (out.size() + detail::layout_threads - 1) / detail::layout_threads,
                        detail::layout_threads, 0, 1, stream, weight, pairs, out);
}

}  // namespace prospect::inline v2::cuda
PROSPECT_STRICT_END
