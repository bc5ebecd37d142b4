// The kernels whose machine code is looked at: the two schedules over logits in fp32 and bf16, with
// and without a map, those of a head in bf16, and the sequence kernel of two pairs' losses, one
// thumb's, and any of each kind.
#include <prospect/cuda/head.cuh>
#include <prospect/cuda/sequences.cuh>
#include <prospect/cuda/token_losses.cuh>
#include <prospect/cuda/tokens.cuh>
#include <prospect/losses/any.hpp>
#include <prospect/losses/paired/dpo.hpp>
#include <prospect/losses/paired/ipo.hpp>
#include <prospect/losses/unpaired/kto.hpp>

namespace gpu = prospect::cuda;

template <class S>
void tokens(prospect::matrix_view<S> logits, prospect::index_row targets,
            const prospect::token_outputs<float>& out, const prospect::token_options& options) {
  gpu::token_log_probs<S>(logits, targets, out, options, {}, nullptr);
  gpu::logits_gradient<S>(logits, targets, out.log_prob, out.lse, out.entropy, options, nullptr);
  gpu::logits_gradient<S>(logits, logits, targets, out.log_prob, out.lse,
                          {.softmax = out.log_prob,
                           .onehot = out.log_prob,
                           .d_entropy = out.log_prob,
                           .entropy = out.entropy},
                          options, nullptr);
  gpu::token_log_probs_and_gradient<S>(logits, targets, out, options, nullptr);
  gpu::scale_rows<S>(logits, out.log_prob, nullptr);
}
template void tokens(prospect::matrix_view<float>, prospect::index_row,
                     const prospect::token_outputs<float>&, const prospect::token_options&);
#ifndef PROSPECT_ONLY_FP32  // of which 16 bits share the arithmetic
template void tokens(prospect::matrix_view<prospect::bfloat16>, prospect::index_row,
                     const prospect::token_outputs<float>&, const prospect::token_options&);

struct any_product {
  template <class S>
  cudaError_t operator()(const gpu::gemm_product<S>& product, cudaStream_t stream) const;
};

void head(const gpu::head_rows<prospect::bfloat16>& rows, const prospect::token_outputs<float>& out,
          const prospect::head_gradients<prospect::bfloat16>& d, gpu::scratch space) {
  gpu::head_log_probs_and_gradient(rows, out, d.hidden, any_product{}, space, nullptr);
  gpu::head_gradient(rows, out.log_prob, out.lse, out.entropy, d, {}, any_product{}, space,
                     nullptr);
}
#endif

void sequences(const prospect::paired_batch<float>& pairs, const prospect::paired_outputs<float>& d,
               const prospect::unpaired_batch<float>& completions,
               const prospect::unpaired_outputs<float>& e, const prospect::token_batch& tokens,
               const prospect::token_batch_outputs& f) {
  const auto by = prospect::normaliser::mean();
  gpu::evaluate(prospect::dpo{}, pairs, d, by, nullptr, {}, nullptr);
  gpu::evaluate(prospect::ipo{}, pairs, d, by, nullptr, {}, nullptr);
  gpu::evaluate(prospect::kto{}, completions, prospect::cross_class{}, e, by, nullptr, {}, nullptr);
  gpu::detail::evaluate_in<float>(prospect::any_paired{}, prospect::detail::any_rows(pairs),
                                  prospect::detail::any_rows(d), by, nullptr, {}, nullptr);
  gpu::detail::evaluate_in<float>(
      prospect::any_unpaired{}, prospect::detail::any_rows(completions),
      gpu::detail::point_source<prospect::mixed>{prospect::cross_class{}},
      prospect::detail::any_rows(e), by, nullptr, {}, nullptr);
  gpu::detail::evaluate_in<float>(prospect::any_token{}, tokens, f, by, nullptr, {}, nullptr);
}
