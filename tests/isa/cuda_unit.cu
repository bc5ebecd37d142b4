// A unit of launchers. Only what it shows to a linker is looked at.
#include <prospect/cuda/sequences.cuh>
#include <prospect/cuda/tokens.cuh>

namespace gpu = prospect::cuda;

cudaError_t cuda_unit(prospect::matrix_view<float> logits, prospect::index_row targets,
                      prospect::strided_span<const double> sums, gpu::scratch space);

cudaError_t cuda_unit(prospect::matrix_view<float> logits, prospect::index_row targets,
                      prospect::strided_span<const double> sums, gpu::scratch space) {
  const gpu::mismatched_batch<double> mismatched{.policy = sums, .reference = sums};
  const prospect::unpaired_batch<double> batch{.policy = sums, .reference = sums};
  if (const cudaError_t e =
          gpu::evaluate(prospect::kto{}, batch, mismatched, prospect::unpaired_outputs<double>{},
                        prospect::normaliser::mean(), nullptr, space, nullptr)) {
    return e;
  }
  if (const cudaError_t e = gpu::logits_gradient<float>(
          logits, targets, {}, {}, prospect::strided_span<const float>{}, {}, nullptr)) {
    return e;
  }
  return gpu::token_log_probs_and_gradient<float>(logits, targets, {}, {}, nullptr);
}
