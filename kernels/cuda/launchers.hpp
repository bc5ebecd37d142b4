// What the archive's device code offers to its host code: the launchers of the library,
// instantiated for losses and storage types in .cu files of their own, so that the C API needs
// no nvcc.
#pragma once

#include "../boundary.hpp"
#include "../sides.hpp"

#include <prospect/core/matrix_view.hpp>
#include <prospect/cuda/batch.hpp>
#include <prospect/cuda/scratch.hpp>
#include <prospect/losses/any.hpp>
#include <prospect/losses/value/clipped_value.hpp>
#include <prospect/token_batch.hpp>
#include <prospect/token_reducer.hpp>
#include <prospect/tokens.hpp>
#include <prospect/vocabulary.hpp>

#include <cuda_runtime_api.h>

namespace prospect::kernels {

/// The losses that most batches are for, where all rows are made of S. The loss is one that was
/// checked.
template <storage S>
struct sequence_launchers {
  static cudaError_t pairs(const dpo& loss, const paired_batch<S>& in, const paired_outputs<S>& out,
                           const cuda::denominator& by, paired_metrics* metrics,
                           cuda::scratch space, cudaStream_t stream);
  static cudaError_t completions(const kto& loss, const unpaired_batch<S>& in,
                                 const cuda::detail::point_source<S>& point,
                                 const unpaired_outputs<S>& out, const cuda::denominator& by,
                                 unpaired_metrics* metrics, cuda::scratch space,
                                 cudaStream_t stream);
};

/// Any loss of losses.def, and rows that differ or are made of 16 bits, with arithmetic in R.
template <std::floating_point R>
struct mixed_launchers {
  static cudaError_t pairs(const any_paired& loss, const paired_batch<>& in,
                           const paired_outputs<>& out, const cuda::denominator& by,
                           paired_metrics* metrics, cuda::scratch space, cudaStream_t stream);
  static cudaError_t pairs(const any_paired& loss, const indexed_pairs& in,
                           const indexed_outputs& out, const cuda::denominator& by,
                           paired_metrics* metrics, cuda::scratch space, cudaStream_t stream);
  static cudaError_t completions(const any_unpaired& loss, const unpaired_batch<>& in,
                                 const cuda::detail::point_source<mixed>& point,
                                 const unpaired_outputs<>& out, const cuda::denominator& by,
                                 unpaired_metrics* metrics, cuda::scratch space,
                                 cudaStream_t stream);
  static cudaError_t mismatched_kl(const cuda::mismatched_batch<>& batch, cuda::scratch space,
                                   cudaStream_t stream);
};

/// Any loss of tokens, with arithmetic in R.
template <std::floating_point R>
struct token_loss_launcher {
  static cudaError_t evaluate(const any_token& loss, const token_batch& in,
                              const token_batch_outputs& out, const cuda::denominator& by,
                              token_metrics* metrics, cuda::scratch space, cudaStream_t stream);
};

/// The functions on logits of one storage type; see prospect/cuda/tokens.cuh.
template <storage S>
struct token_launchers {
  static cudaError_t log_probs(matrix_view<const S> logits, index_row targets,
                               const token_outputs<float>& out, const token_options& options,
                               cuda::scratch space, cudaStream_t stream);
  /// The gradient over the logits or elsewhere, of arguments that were checked.
  static cudaError_t log_probs_and_gradient(matrix_view<const S> logits, matrix_view<S> gradient,
                                            index_row targets, const token_outputs<float>& out,
                                            const token_options& options, cudaStream_t stream);
  static cudaError_t gradient(matrix_view<const S> logits, matrix_view<S> gradient,
                              index_row targets, strided_span<const float> log_prob,
                              strided_span<const double> lse, strided_span<const float> d_token,
                              const token_options& options, cudaStream_t stream);
  static cudaError_t gradient_of_two(matrix_view<const S> logits, matrix_view<S> gradient,
                                     index_row targets, strided_span<const float> log_prob,
                                     strided_span<const double> lse,
                                     const token_coefficients<float>& coefficients,
                                     const token_options& options, cudaStream_t stream);
  static cudaError_t scale_rows(matrix_view<S> matrix, strided_span<const float> factors,
                                cudaStream_t stream);
  static cudaError_t partials(matrix_view<const S> logits, index_row targets,
                              strided_span<vocabulary_partial> out, const token_options& options,
                              bool statistics, cuda::scratch space, cudaStream_t stream);
};

/// What depends on no logits.
template <std::floating_point R>
struct layout_launchers {
  static cudaError_t sums(strided_span<const R> log_prob, index_row targets,
                          const sequence_layout& layout, const sequence_outputs& out,
                          const mask_row& mask, cudaStream_t stream);
  static cudaError_t spread(const const_any_row& d_sequence, index_row targets,
                            const sequence_layout& layout, strided_span<R> d_token,
                            const mask_row& mask, cudaStream_t stream);
};
cudaError_t launch_reduced_sums(const token_reducer& by, index_row targets,
                                const sequence_layout& layout, const sequence_outputs& out,
                                const mask_row& mask, cudaStream_t stream);
cudaError_t launch_reduced_spread(const token_reducer& by, const const_any_row& d_sequence,
                                  index_row targets, const sequence_layout& layout,
                                  const any_row& d_token, const mask_row& mask,
                                  cudaStream_t stream);
cudaError_t launch_public_tokens(strided_span<const std::int32_t> tokens,
                                 const sequence_pairs& pairs, strided_span<std::int32_t> out,
                                 cudaStream_t stream);
cudaError_t launch_wpo_weights(const const_any_row& log_prob, const const_any_row& sum_squares,
                               index_row targets, const sequence_layout& layout,
                               const any_row& weight, const mask_row& mask, cudaStream_t stream);
cudaError_t launch_pair_weights(const const_any_row& weight, const sequence_pairs& pairs,
                                const any_row& out, cudaStream_t stream);
cudaError_t launch_combine(matrix_view<const vocabulary_partial> parts, index_row targets,
                           const token_outputs<float>& out, const mask_row& mask,
                           cudaStream_t stream);
cudaError_t launch_shift_targets(index_row labels, const sequence_layout& layout,
                                 strided_span<std::int32_t> targets, cudaStream_t stream);
/// With arithmetic in fp32 or fp64, as the rows have it.
cudaError_t launch_values(const clipped_value& loss, const value_batch& in,
                          const value_outputs& out, const cuda::denominator& by,
                          value_metrics* metrics, cuda::scratch space, cudaStream_t stream);
/// Where the loss was checked.
cudaError_t launch_aot_margins(const paired_batch<>& in, const any_row& margin, cuda::scratch space,
                               cudaStream_t stream);
cudaError_t launch_aot_pairs(const indexed_pairs& in, strided_span<std::int32_t> chosen,
                             strided_span<std::int32_t> rejected, cuda::scratch space,
                             cudaStream_t stream);
cudaError_t launch_aot_pairs(const indexed_pairs& in, strided_span<std::int64_t> chosen,
                             strided_span<std::int64_t> rejected, cuda::scratch space,
                             cudaStream_t stream);
/// What pairs say about their sequences, added up for each sequence in the order of the pairs.
cudaError_t launch_add_up(const sides_of_pairs& sides, strided_span<double> d, cudaStream_t stream);

}  // namespace prospect::kernels
