// See transformer.hpp.
#include "model/transformer.hpp"

#include "model/transformer_passes.hpp"

namespace align {

template void forward<float>(const model_view<float>&, const packed_batch&, leave,
                             activations<float>&, workers&);
template void forward<bfloat16>(const model_view<bfloat16>&, const packed_batch&, leave,
                                activations<bfloat16>&, workers&);
template void backward<float>(const model_view<float>&, const packed_batch&, activations<float>&,
                              const model_gradient<float>&, workers&);
template void backward<bfloat16>(const model_view<bfloat16>&, const packed_batch&,
                                 activations<bfloat16>&, const model_gradient<float>&, workers&);
template struct activations<float>;
template struct activations<bfloat16>;
template std::size_t activation_bytes<float>(const model_shape&, const lora_settings&, std::size_t,
                                             std::size_t, leave);
template std::size_t activation_bytes<bfloat16>(const model_shape&, const lora_settings&,
                                                std::size_t, std::size_t, leave);

}  // namespace align
