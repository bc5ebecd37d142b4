// The sorts of AOT.
#include "launchers.hpp"

#include <prospect/cuda/aot.cuh>

namespace prospect::kernels {

cudaError_t launch_aot_margins(const paired_batch<>& in, const any_row& margin, cuda::scratch space,
                               cudaStream_t stream) {
  return cuda::detail::checked_aot_margins(in, margin, space, stream);
}

cudaError_t launch_aot_pairs(const indexed_pairs& in, strided_span<std::int32_t> chosen,
                             strided_span<std::int32_t> rejected, cuda::scratch space,
                             cudaStream_t stream) {
  return cuda::aot_pairs(in, chosen, rejected, space, stream);
}
cudaError_t launch_aot_pairs(const indexed_pairs& in, strided_span<std::int64_t> chosen,
                             strided_span<std::int64_t> rejected, cuda::scratch space,
                             cudaStream_t stream) {
  return cuda::aot_pairs(in, chosen, rejected, space, stream);
}

}  // namespace prospect::kernels
