// A Llama model, forward and backward by hand: embeddings, pre-norm blocks (RMSNorm, causal
// attention with grouped queries and RoPE, SwiGLU), a last norm. It maps packed tokens to hidden
// states and gradients of hidden states to gradients of parameters; the product with the head is
// left to scoring.hpp, which never holds all of it.
//
// Weights and what is multiplied by them are stored as W, which is float, bfloat16 (or double in
// tests); everything else is computed and kept in float (double).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "model/batch.hpp"
#include "model/layers.hpp"
#include "model/weights.hpp"
#include "tensor.hpp"
#include "threads.hpp"

namespace align {

// A model as a pass over it sees it.
template <class W>
struct model_view {
  const model_shape& shape;
  std::span<const W> parameters;
  lora_settings lora = {};
  std::span<const W> adapters = {};  // empty: none take part
};

// What a backward pass adds to; a part that is empty is frozen.
template <class T>
struct model_gradient {
  std::span<T> parameters, adapters;
};

// What a forward pass leaves for a backward pass: everything; or the input of every block alone,
// from which the rest is computed again (memory for a third more time; Chen et al. 2016, arXiv
// 1604.06174).
enum class leave { nothing, inputs, everything };

// Low-rank products of one block, one row per token.
template <class W>
struct adapter_activations {
  tensor<W> query_key_value, mix, gate_up, down;
};

// What one block computes on the way to its output.
template <class W>
struct block_activations {
  using T = arithmetic<W>;
  tensor<T> query_key_value, log_normaliser, middle, gate_up;
  tensor<W> mixed;
  adapter_activations<W> low;
};

// The memory of one forward and backward pass; reused from batch to batch.
template <class W>
struct activations {
  using T = arithmetic<W>;
  std::int64_t tokens = 0;              // of the batch, and rows without any up to a whole tile
  std::vector<std::int32_t> positions;  // of each row in its sequence
  rotation<T> turns;
  leave left = leave::nothing;

  std::vector<tensor<T>> inputs;             // of the blocks, and the output of the last
  std::vector<block_activations<W>> blocks;  // as many as `left` says
  tensor<T> scored;
  tensor<W> hidden, d_hidden;  // one row per scored position: what the head reads

  // Of one block at a time.
  tensor<W> normed_input, normed_middle, activated, d_output, d_middle, d_gate_up,
      d_query_key_value;
  tensor<T> low, d_stream, d_activated, wide_d_gate_up, d_normed, d_mixed, wide_d_query_key_value;
  tensor<T> d_gain;  // a row for each piece of the rows
  adapter_activations<W> d_low;

  std::size_t bytes() const;
};

// The most that `activations` hold for a batch of so many tokens, so many of them scored, after a
// backward pass where one follows.
template <class W>
std::size_t activation_bytes(const model_shape& shape, const lora_settings& lora,
                             std::size_t tokens, std::size_t scored, leave left);

// Fills `a.hidden`. Throws std::invalid_argument for a sequence longer than the context and a token
// outside the vocabulary.
template <class W>
void forward(const model_view<W>& model, const packed_batch& batch, leave left, activations<W>& a,
             workers& on);

// Expects dL/dhidden, after `forward` of the same batch, in `a.d_hidden`. Adds dL/dparameters and
// dL/dadapters to `gradient`, but for the head's part: that is known to whoever knows dL/dhidden.
template <class W>
void backward(const model_view<W>& model, const packed_batch& batch, activations<W>& a,
              const model_gradient<arithmetic<W>>& gradient, workers& on);

// The head inside the parameters and adapters, or inside their gradients.
template <class W>
head_weights<const W> head_of(const model_view<W>& model) {
  return carve(model.shape, model.parameters, model.lora, model.adapters).head;
}
template <class W>
head_weights<arithmetic<W>> head_of(const model_view<W>& model,
                                    const model_gradient<arithmetic<W>>& gradient) {
  return carve(model.shape, gradient.parameters, model.lora, gradient.adapters).head;
}

}  // namespace align
