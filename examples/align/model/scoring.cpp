// See scoring.hpp: Prospect's head path, from hidden states.
#include "model/scoring.hpp"

#include <prospect/cpu/head.hpp>
#include <prospect/prospect.hpp>

#include "gemm.hpp"

namespace align {

template <class W>
struct head_memory {
  prospect::cpu::head_workspace<float> workspace{std::int64_t{head_workspace_bytes}};
  prospect::cpu::head_ticket ticket = {};  // of the last `score`
};

namespace {

template <class W>
prospect::lm_head<W> library_head(const head_weights<const W>& head) {
  if (head.down.data == nullptr) return {.weight = head.weight};
  return {.weight = head.weight, .lora = {.a = head.down, .b = head.up, .scale = head.scale}};
}

// A gradient without data is not wanted.
matrix<float> wanted(const matrix<float>& gradient) {
  return gradient.data == nullptr ? matrix<float>{} : gradient;
}

}  // namespace

template <class W>
void score(matrix<const W> hidden, const head_weights<const W>& head, const packed_batch& batch,
           head_use use, token_scores<W>& scores, matrix<W> d_hidden, workers& on) {
  // No more than the largest batch needs, as it was told beforehand.
  scores.log_prob.reserve(batch.targets.size());
  scores.lse.reserve(batch.targets.size());
  scores.log_prob.resize(batch.targets.size());
  scores.lse.resize(batch.targets.size());
  scores.sequence.resize(batch.sequences());
  if (!scores.memory) scores.memory = std::make_shared<head_memory<W>>();
  const prospect::token_outputs<float> out{scores.log_prob, scores.lse};
  if (use == head_use::frozen) {
    prospect::cpu::head_log_probs_and_gradient<W>(hidden, library_head(head), batch.targets, out,
                                                  d_hidden, scores.memory->workspace, {},
                                                  fast_gemm{}, on.pool());
  } else {
    scores.memory->ticket = prospect::cpu::head_log_probs<W>(
        hidden, library_head(head), batch.targets, out, scores.memory->workspace,
        use == head_use::trained, {}, fast_gemm{}, on.pool());
  }
  prospect::cpu::sequence_sums<float>(scores.log_prob, batch.targets,
                                      prospect::sequence_layout::packed(batch.scored_offsets),
                                      {.log_prob = scores.sequence, .tokens = {}});
}

template <class W>
void backpropagate(matrix<const W> hidden, const head_weights<const W>& head,
                   const packed_batch& batch, head_use use, token_scores<W>& scores,
                   std::span<const double> coefficients, matrix<W> d_hidden,
                   const head_weights<float>& d_head, workers& on) {
  std::vector<float> d_token(batch.targets.size());
  prospect::cpu::spread<float>(coefficients, batch.targets,
                               prospect::sequence_layout::packed(batch.scored_offsets), d_token);
  if (use == head_use::frozen) {
    return prospect::cpu::scale_rows<W>(d_hidden, d_token, on.pool());
  }
  prospect::cpu::head_gradient<W>(
      hidden, library_head(head), batch.targets, scores.log_prob, scores.lse, d_token,
      {.hidden = d_hidden,
       .weight = wanted(d_head.weight),
       .lora_a = wanted(d_head.down),
       .lora_b = wanted(d_head.up),
       .accumulate = true},
      scores.memory->ticket, scores.memory->workspace, {}, fast_gemm{}, on.pool());
}

template void score<float>(matrix<const float>, const head_weights<const float>&,
                           const packed_batch&, head_use, token_scores<float>&, matrix<float>,
                           workers&);
template void score<bfloat16>(matrix<const bfloat16>, const head_weights<const bfloat16>&,
                              const packed_batch&, head_use, token_scores<bfloat16>&,
                              matrix<bfloat16>, workers&);
template void backpropagate<float>(matrix<const float>, const head_weights<const float>&,
                                   const packed_batch&, head_use, token_scores<float>&,
                                   std::span<const double>, matrix<float>,
                                   const head_weights<float>&, workers&);
template void backpropagate<bfloat16>(matrix<const bfloat16>, const head_weights<const bfloat16>&,
                                      const packed_batch&, head_use, token_scores<bfloat16>&,
                                      std::span<const double>, matrix<bfloat16>,
                                      const head_weights<float>&, workers&);

}  // namespace align
