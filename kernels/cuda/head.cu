// The head path for the storage type of hidden states that this file is compiled for;
// PROSPECT_STORAGE names it.
#include "head_launchers.hpp"
#include "launchers.hpp"

#include <prospect/cuda/tokens.cuh>

// What happens to fp32 logits is in the archive already, for fp32 gradients as well: these call it
// there, so that its kernels are compiled and shipped once and not in each of these files.
namespace prospect::inline v2::cuda {

using fp32_rows = kernels::token_launchers<float>;

template <>
inline cudaError_t token_log_probs<float>(matrix_view<const float> logits, index_row targets,
                                          const token_outputs<float>& out,
                                          const token_options& options, scratch space,
                                          cudaStream_t stream) {
  return fp32_rows::log_probs(logits, targets, out, options, space, stream);
}
template <>
inline cudaError_t vocabulary_partials<float>(matrix_view<const float> logits, index_row targets,
                                              strided_span<vocabulary_partial> out,
                                              const token_options& options, bool statistics,
                                              scratch space, cudaStream_t stream) {
  return fp32_rows::partials(logits, targets, out, options, statistics, space, stream);
}

namespace detail {

// Where hidden states are fp32. Coefficients of a head pass are two for each token, as they stand.
template <>
[[maybe_unused]] inline cudaError_t deferred_rows<float, float>(
    matrix_view<const float> logits, matrix_view<float> gradient, index_row targets,
    const token_outputs<float>& out, const token_options& options, cudaStream_t stream) {
  return fp32_rows::log_probs_and_gradient(logits, gradient, targets, out, options, stream);
}
template <>
[[maybe_unused]] inline cudaError_t gradient<false, float, float>(
    matrix_view<const float> logits, matrix_view<float> gradient, index_row targets,
    strided_span<const float> log_prob, strided_span<const double> lse,
    const prospect::detail::coefficient_rows<float>& coefficients, const token_options& options,
    cudaStream_t stream) {
  return fp32_rows::gradient_of_two(logits, gradient, targets, log_prob, lse, coefficients.rows,
                                    options, stream);
}
template <>
[[maybe_unused]] inline cudaError_t gradient<true, float, float>(
    matrix_view<const float> logits, matrix_view<float> gradient, index_row targets,
    strided_span<const float> log_prob, strided_span<const double> lse,
    const prospect::detail::coefficient_rows<float>& coefficients, const token_options& options,
    cudaStream_t stream) {
  return fp32_rows::gradient_of_two(logits, gradient, targets, log_prob, lse, coefficients.rows,
                                    options, stream);
}

}  // namespace detail

}  // namespace prospect::inline v2::cuda

#include <prospect/cuda/head.cuh>

namespace prospect::kernels {

template <storage S>
cudaError_t head_launchers<S>::log_probs(const cuda::head_rows<S>& rows,
                                         const token_outputs<float>& out,
                                         const callers_gemm& multiply, cuda::scratch space,
                                         cudaStream_t stream, cuda::head_ticket* keep) {
  return cuda::head_log_probs<S>(rows, out, multiply, space, stream, keep);
}

template <storage S>
cudaError_t head_launchers<S>::log_probs_and_gradient(const cuda::head_rows<S>& rows,
                                                      const token_outputs<float>& out,
                                                      const matrix_view<S>& d_hidden,
                                                      const callers_gemm& multiply,
                                                      cuda::scratch space, cudaStream_t stream) {
  return cuda::head_log_probs_and_gradient<S>(rows, out, d_hidden, multiply, space, stream);
}

template <storage S>
cudaError_t head_launchers<S>::partials(const cuda::head_rows<S>& rows,
                                        strided_span<vocabulary_partial> out, bool statistics,
                                        const callers_gemm& multiply, cuda::scratch space,
                                        cudaStream_t stream) {
  return cuda::head_vocabulary_partials<S>(rows, out, statistics, multiply, space, stream);
}

template <storage S>
cudaError_t head_launchers<S>::gradient(const cuda::head_rows<S>& rows,
                                        const coefficients_of<float>& by,
                                        const head_gradients<S>& gradients,
                                        cuda::head_ticket ticket, const callers_gemm& multiply,
                                        cuda::scratch space, cudaStream_t stream) {
  return by.one ? cuda::head_gradient<S>(rows, by.log_prob, by.lse, by.d_token, gradients, ticket,
                                         multiply, space, stream)
                : cuda::head_gradient<S>(rows, by.log_prob, by.lse, by.rows, gradients, multiply,
                                         space, stream);
}

template <storage S>
cudaError_t head_launchers<S>::step(const cuda::head_rows<S>& rows, const sequence_layout& layout,
                                    std::int64_t at_a_time, const token_outputs<float>& out,
                                    const callers_ready& ready, const coefficients_of<float>& by,
                                    const head_gradients<S>& gradients,
                                    const callers_gemm& multiply, cuda::scratch space,
                                    cudaStream_t stream) {
  return by.one ? cuda::head_step<S>(rows, layout, at_a_time, out, ready, by.d_token, gradients,
                                     multiply, space, stream)
                : cuda::head_step<S>(rows, layout, at_a_time, out, ready, by.rows, gradients,
                                     multiply, space, stream);
}

template struct head_launchers<PROSPECT_STORAGE>;

}  // namespace prospect::kernels
