// A small decoder-only transformer, forward and backward by hand: token and position embeddings,
// pre-norm blocks (RMSNorm, causal attention, GELU), an untied head. It maps packed tokens to
// hidden states and gradients of hidden states to gradients of parameters; the product with the
// head is left to the objective, which never holds all of it.
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

// The last layer, [vocabulary, width], inside the parameters or their gradient.
template <class T>
matrix_of<T> head_of(const model_shape& shape, std::span<T> flat);

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
  tensor<T> output, scored;
  tensor<T> normed_scored, d_normed_scored;  // one row per scored position: what the head reads
  tensor<T> d_stream, d_wide, d_narrow, d_scored, d_scores;
};

// Fills `a.normed_scored`. Throws std::invalid_argument for a sequence longer than the context.
template <class T>
void forward(const model_shape& shape, std::span<const T> parameters, const packed_batch& batch,
             activations<T>& a);

// Expects dL/dnormed_scored, after `forward` of the same batch, in `a.d_normed_scored`, which it
// overwrites. Adds dL/dparameters to `gradient`, but for the head's part: that is known to whoever
// knows dL/dnormed_scored.
template <class T>
void backward(const model_shape& shape, std::span<const T> parameters, const packed_batch& batch,
              activations<T>& a, std::span<T> gradient);

// One row per scored position, after `forward`: for sampling, as training has no need of them.
template <class T>
row_major<T> logits(const model_shape& shape, std::span<const T> parameters,
                    const activations<T>& a);

}  // namespace align
