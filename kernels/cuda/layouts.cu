// What depends on no logits: sums over sequences, coefficients spread over tokens, weights that
// follow from tokens, shifted labels and combined partials.
#include "launchers.hpp"

#include <prospect/cuda/token_reducers.cuh>
#include <prospect/cuda/tokens.cuh>

namespace prospect::kernels {

template <std::floating_point R>
cudaError_t layout_launchers<R>::sums(strided_span<const R> log_prob, index_row targets,
                                      const sequence_layout& layout, const sequence_outputs& out,
                                      const mask_row& mask, cudaStream_t stream) {
  return cuda::sequence_sums<R>(log_prob, targets, layout, out, mask, stream);
}

template <std::floating_point R>
cudaError_t layout_launchers<R>::spread(const const_any_row& d_sequence, index_row targets,
                                        const sequence_layout& layout, strided_span<R> d_token,
                                        const mask_row& mask, cudaStream_t stream) {
  return cuda::spread<R>(d_sequence, targets, layout, d_token, mask, stream);
}

template struct layout_launchers<float>;
template struct layout_launchers<double>;

cudaError_t launch_reduced_sums(const token_reducer& by, index_row targets,
                                const sequence_layout& layout, const sequence_outputs& out,
                                const mask_row& mask, cudaStream_t stream) {
  return cuda::sequence_sums(by, targets, layout, out, mask, stream);
}

cudaError_t launch_reduced_spread(const token_reducer& by, const const_any_row& d_sequence,
                                  index_row targets, const sequence_layout& layout,
                                  const any_row& d_token, const mask_row& mask,
                                  cudaStream_t stream) {
  return cuda::spread(by, d_sequence, targets, layout, d_token, mask, stream);
}

cudaError_t launch_public_tokens(strided_span<const std::int32_t> tokens,
                                 const sequence_pairs& pairs, strided_span<std::int32_t> out,
                                 cudaStream_t stream) {
  return cuda::public_tokens(tokens, pairs, out, stream);
}

cudaError_t launch_wpo_weights(const const_any_row& log_prob, const const_any_row& sum_squares,
                               index_row targets, const sequence_layout& layout,
                               const any_row& weight, const mask_row& mask, cudaStream_t stream) {
  return cuda::wpo_weights(log_prob, sum_squares, targets, layout, weight, mask, stream);
}

cudaError_t launch_pair_weights(const const_any_row& weight, const sequence_pairs& pairs,
                                const any_row& out, cudaStream_t stream) {
  return cuda::pair_weights(weight, pairs, out, stream);
}

cudaError_t launch_combine(matrix_view<const vocabulary_partial> parts, index_row targets,
                           const token_outputs<float>& out, const mask_row& mask,
                           cudaStream_t stream) {
  return cuda::token_log_probs(parts, targets, out, mask, stream);
}

cudaError_t launch_shift_targets(index_row labels, const sequence_layout& layout,
                                 strided_span<std::int32_t> targets, cudaStream_t stream) {
  return cuda::shift_targets(labels, layout, targets, stream);
}

namespace {

constexpr int pair_threads = 256;

/// A warp for each sequence, which looks through all pairs: each lane in order, then lane by lane.
__global__ void __launch_bounds__(pair_threads)
    add_up_kernel(const sides_of_pairs sides, strided_span<double> d) {
  const std::int64_t s = (std::int64_t{blockIdx.x} * pair_threads + threadIdx.x) / 32;
  if (s >= d.size()) return;
  double sum = 0;
  for (std::int64_t i = threadIdx.x % 32; i < sides.which[0].size(); i += 32) {
#pragma unroll
    for (int k = 0; k < 3; ++k) {
      if (i < sides.which[k].size() && sides.which[k][i] == s) sum += sides.d[k][i];
    }
  }
  for (int apart = 16; apart > 0; apart /= 2) sum += __shfl_down_sync(0xffffffffU, sum, apart);
  if (threadIdx.x % 32 == 0) d[s] = sum;
}

}  // namespace

cudaError_t launch_add_up(const sides_of_pairs& sides, strided_span<double> d,
                          cudaStream_t stream) {
  if (d.size() == 0) return cudaSuccess;
  constexpr std::int64_t sequences_per_block = pair_threads / 32;
  const std::int64_t blocks = (d.size() + sequences_per_block - 1) / sequences_per_block;
  return cuda::detail::launch(&add_up_kernel, blocks, pair_threads, 0, 1, stream, sides, d);
}

}  // namespace prospect::kernels
