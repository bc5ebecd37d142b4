// Names for the stretches of a flat row of parameters, or of its gradient: weights, and the
// low-rank adapters (LoRA; Hu et al. 2021, arXiv 2106.09685) that may stand beside them. Matrices
// that read the same input lie next to each other and are multiplied as one.
#pragma once

#include <span>
#include <stdexcept>
#include <vector>

#include "model/shape.hpp"
#include "tensor.hpp"

namespace align {

// W' = W + alpha / rank B A for every matrix inside the blocks, and for a head that is not tied if
// it says so. Rank 0: none.
struct lora_settings {
  int rank = 0;
  double alpha = 0;
  bool head = false;

  double scale() const { return rank > 0 ? alpha / rank : 0; }
  friend bool operator==(const lora_settings&, const lora_settings&) = default;
};

// A [rank, inputs] and B [outputs, rank] of every matrix, in the order in which they lie in the
// flat row of adapters: all A of one input, then their B.
std::vector<weight_place> adapters_of(const model_shape& shape, const lora_settings& lora);
std::size_t adapter_count(const model_shape& shape, const lora_settings& lora);

// y = x W^T + scale (x A^T) B^T. `P` is const W for parameters, T for their gradient; a part that
// is not there has no data.
template <class P>
struct linear {
  struct part {
    std::int64_t first_output = 0;
    matrix<P> up;  // B
  };
  matrix<P> weight;  // [outputs, inputs]
  matrix<P> down;    // A of all parts, [parts * rank, inputs]
  std::vector<part> parts;
};

template <class P>
struct block_weights {
  matrix<P> attention_gain, feed_forward_gain;
  linear<P> query_key_value, mix, gate_up, down;
};

// logits = x (W + scale B A)^T, a row for each word.
template <class P>
struct head_weights {
  matrix<P> weight;
  matrix<P> down = {}, up = {};  // A and B, without data where there are none
  double scale = 0;
};

template <class P>
struct model_weights {
  matrix<P> words;
  std::vector<block_weights<P>> blocks;
  matrix<P> output_gain;
  head_weights<P> head;  // its weight is `words` where it is tied
};

namespace detail {

// Hands out matrices from the front of a flat row; of an empty one, matrices without data.
template <class P>
class carver {
 public:
  explicit carver(std::span<P> flat) : next_(flat.data()) {}

  matrix<P> operator()(std::int64_t rows, std::int64_t columns) {
    P* const here = next_;
    if (next_ != nullptr) next_ += rows * columns;
    return {here, rows, columns};
  }

 private:
  P* next_;
};

template <class P>
void require_size(std::span<P> flat, std::size_t size, const char* name) {
  if (!flat.empty() && flat.size() != size) {
    throw std::invalid_argument(std::string{name} +
                                ": their number does not fit the shape of the model");
  }
}

}  // namespace detail

// Either row may be empty: what is frozen has no gradient, and who has no adapters no row of them.
template <class P>
model_weights<P> carve(const model_shape& s, std::span<P> parameters,
                       const lora_settings& lora = {}, std::span<P> adapters = {}) {
  detail::require_size(parameters, parameter_count(s), "parameters");
  detail::require_size(adapters, adapter_count(s, lora), "adapters");
  detail::carver<P> take(parameters), adapter(adapters);
  const int queries = s.heads * s.head_width, keys = s.key_value_heads * s.head_width;
  // Matrices of the same input, one after the other.
  const auto together = [&](std::initializer_list<int> outputs, int inputs) {
    std::int64_t all = 0;
    for (const int n : outputs) all += n;
    linear<P> made;
    made.weight = take(all, inputs);
    if (lora.rank == 0 || adapters.empty()) return made;
    made.down = adapter(static_cast<std::int64_t>(outputs.size()) * lora.rank, inputs);
    std::int64_t first = 0;
    for (const int n : outputs) {
      made.parts.push_back({first, adapter(n, lora.rank)});
      first += n;
    }
    return made;
  };
  model_weights<P> w;
  w.words = take(s.vocabulary, s.width);
  for (int i = 0; i < s.layers; ++i) {
    block_weights<P> b;
    b.attention_gain = take(1, s.width);
    b.query_key_value = together({queries, keys, keys}, s.width);
    b.mix = together({s.width}, queries);
    b.feed_forward_gain = take(1, s.width);
    b.gate_up = together({s.feed_forward, s.feed_forward}, s.width);
    b.down = together({s.width}, s.feed_forward);
    w.blocks.push_back(std::move(b));
  }
  w.output_gain = take(1, s.width);
  w.head.weight = s.tied_head ? w.words : take(s.vocabulary, s.width);
  if (lora.head && !adapters.empty()) {
    w.head.down = adapter(lora.rank, s.width);
    w.head.up = adapter(s.vocabulary, lora.rank);
    w.head.scale = lora.scale();
  }
  return w;
}

}  // namespace align
