// A small decoder-only transformer, forward and backward by hand: token and position embeddings,
// pre-norm blocks (RMSNorm, causal attention, GELU), an untied head. It maps packed tokens to
// logits and gradients of logits to gradients of parameters, and knows of no loss.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "batch.hpp"
#include "tensor.hpp"

namespace align {

struct model_shape {
  int vocabulary = 0;
  int context = 0;  // the longest sequence
  int width = 64;
  int layers = 2;
  int heads = 4;
  friend bool operator==(const model_shape&, const model_shape&) = default;
};

// Parameters are one flat row, so that optimiser, checkpoint and gradient sums are one loop each.
std::size_t parameter_count(const model_shape& shape);

// A trained model as everything but its trainer sees it.
struct language_model {
  model_shape shape;
  std::span<const float> parameters;
};

aligned_vector<float> initial_parameters(const model_shape& shape, std::uint64_t seed);

// What one block keeps of its forward pass for its backward pass.
template <class T>
struct block_activations {
  tensor<T> input, normed_input, query_key_value, attention, mixed;
  tensor<T> middle, normed_middle, up, activated;
};

// The memory of one forward and backward pass; reused from batch to batch.
template <class T>
struct activations {
  std::vector<block_activations<T>> blocks;
  tensor<T> output, scored, normed_scored;
  tensor<T> logits;  // one row per scored position
  tensor<T> d_stream, d_wide, d_narrow, d_scored, d_scores;
};

// Fills `a.logits`. Throws std::invalid_argument for a sequence longer than the context.
template <class T>
void forward(const model_shape& shape, std::span<const T> parameters, const packed_batch& batch,
             activations<T>& a);

// Expects dL/dlogits in `a.logits`, where `forward` of the same batch left the logits, and adds
// dL/dparameters to `gradient`.
template <class T>
void backward(const model_shape& shape, std::span<const T> parameters, const packed_batch& batch,
              activations<T>& a, std::span<T> gradient);

}  // namespace align
