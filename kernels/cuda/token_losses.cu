// The sequence kernel for any loss of tokens of losses.def and rows of any storage types, with
// arithmetic in the type that this file is compiled for; PROSPECT_ARITHMETIC names it.
#include "launchers.hpp"

#include <prospect/cuda/token_losses.cuh>

namespace prospect::kernels {

template <std::floating_point R>
cudaError_t token_loss_launcher<R>::evaluate(const any_token& loss, const token_batch& in,
                                             const token_batch_outputs& out,
                                             const cuda::denominator& by, token_metrics* metrics,
                                             cuda::scratch space, cudaStream_t stream) {
  return cuda::detail::evaluate_in<R>(loss, in, out, by, metrics, space, stream);
}

template struct token_loss_launcher<PROSPECT_ARITHMETIC>;

}  // namespace prospect::kernels
