// How a packed batch lies in the memory of a pass, how its rows are shared among threads, and what
// stands at both ends of the blocks.
#pragma once

#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <string>

#include "model/transformer.hpp"

namespace align::detail {

// Fixed, so that sums are rounded alike on every machine.
constexpr std::int64_t piece_rows = 128;

// Batches are filled up with rows of zeros, which stay zeros, to this many: products come in few
// sizes then, and those that make code for a size make it once.
constexpr std::int64_t tile_rows = 32;

template <class W>
void lay_out(const model_shape& s, const packed_batch& batch, leave left, activations<W>& a) {
  const auto scored = static_cast<std::int64_t>(batch.scored.size());
  a.tokens = static_cast<std::int64_t>(batch.inputs.size());
  const std::int64_t rows = (a.tokens + tile_rows - 1) / tile_rows * tile_rows;
  a.positions.assign(static_cast<std::size_t>(rows), 0);
  for (std::size_t q = 0; q < batch.sequences(); ++q) {
    const std::int32_t first = batch.offsets[q], end = batch.offsets[q + 1];
    if (end - first > s.context) {
      throw std::invalid_argument("batch: a sequence of " + std::to_string(end - first) +
                                  " tokens is longer than the context of the model, " +
                                  std::to_string(s.context));
    }
    a.turns.reach(s, end - first);
    for (std::int32_t t = first; t < end; ++t) {
      const token id = batch.inputs[static_cast<std::size_t>(t)];
      if (id < 0 || id >= s.vocabulary) {
        throw std::invalid_argument("batch: the token " + std::to_string(id) +
                                    " is outside the vocabulary");
      }
      a.positions[static_cast<std::size_t>(t)] = t - first;
    }
  }
  a.turns.reach(s, 1);
  a.left = left;
  const auto layers = static_cast<std::size_t>(s.layers);
  a.inputs.resize(left == leave::nothing ? 2 : layers + 1);
  for (auto& input : a.inputs) input.reshape(rows, s.width);
  a.blocks.resize(left == leave::everything ? layers : 1);
  const std::int64_t queries = std::int64_t{s.heads} * s.head_width;
  const std::int64_t qkv = queries + std::int64_t{2} * s.key_value_heads * s.head_width;
  for (auto& b : a.blocks) {
    b.query_key_value.reshape(rows, qkv);
    b.log_normaliser.reshape(rows, s.heads);
    b.middle.reshape(rows, s.width);
    b.gate_up.reshape(rows, std::int64_t{2} * s.feed_forward);
    const matrix<W> mixed = b.mixed.reshape(rows, queries);
    for (std::int64_t i = a.tokens; i < rows; ++i) std::fill_n(mixed.row(i), queries, W(0.0F));
  }
  a.normed_input.reshape(rows, s.width);
  a.normed_middle.reshape(rows, s.width);
  a.activated.reshape(rows, s.feed_forward);
  a.scored.reshape(scored, s.width);
  a.hidden.reshape(scored, s.width);
}

template <class W>
void lay_out_low(const lora_settings& lora, std::int64_t rows, adapter_activations<W>& low) {
  const std::int64_t rank = lora.rank;
  low.query_key_value.reshape(rows, 3 * rank);
  low.mix.reshape(rows, rank);
  low.gate_up.reshape(rows, 2 * rank);
  low.down.reshape(rows, rank);
}

// Of a forward pass: nothing where no adapters take part.
template <class W>
void lay_out_adapters(const model_view<W>& model, std::int64_t rows, activations<W>& a) {
  if (model.adapters.empty()) return;
  for (auto& b : a.blocks) lay_out_low(model.lora, rows, b.low);
  a.low.reshape(rows, std::int64_t{3} * model.lora.rank);
}

template <class W>
void lay_out_backward(const model_shape& s, std::int64_t rows, activations<W>& a) {
  const std::int64_t queries = std::int64_t{s.heads} * s.head_width;
  const std::int64_t qkv = a.blocks[0].query_key_value.view().columns;
  a.d_output.reshape(rows, s.width);
  a.d_middle.reshape(rows, s.width);
  a.d_stream.reshape(rows, s.width);
  a.d_normed.reshape(rows, s.width);
  a.d_mixed.reshape(rows, queries);
  a.d_activated.reshape(rows, s.feed_forward);
  a.wide_d_gate_up.reshape(rows, std::int64_t{2} * s.feed_forward);
  if constexpr (!std::same_as<W, arithmetic<W>>) {
    a.d_gate_up.reshape(rows, std::int64_t{2} * s.feed_forward);
    a.d_query_key_value.reshape(rows, qkv);
  }
  // Rows without a token are no sequence's, so attention leaves them alone.
  const auto d_qkv = a.wide_d_query_key_value.reshape(rows, qkv);
  for (std::int64_t i = a.tokens; i < rows; ++i) {
    std::fill_n(d_qkv.row(i), qkv, arithmetic<W>(0));
  }
}

// Calls use(index, first, count) for every piece of the rows.
template <class Use>
void on_pieces(std::int64_t rows, workers& on, const Use& use) {
  on(static_cast<std::size_t>((rows + piece_rows - 1) / piece_rows), [&](std::size_t i) {
    const std::int64_t first = static_cast<std::int64_t>(i) * piece_rows;
    use(static_cast<std::int64_t>(i), first, std::min(piece_rows, rows - first));
  });
}

// Calls use(first, length, group) for every sequence and group of heads.
template <class Use>
void on_groups(const model_shape& s, const packed_batch& batch, workers& on, const Use& use) {
  const auto groups = static_cast<std::size_t>(s.key_value_heads);
  on(batch.sequences() * groups, [&](std::size_t i) {
    const std::size_t q = i / groups;
    const std::int64_t first = batch.offsets[q];
    use(first, batch.offsets[q + 1] - first, static_cast<int>(i % groups));
  });
}

template <class W>
std::int64_t padded_rows(const activations<W>& a) {
  return static_cast<std::int64_t>(a.positions.size());
}

// The stream as it enters the first block.
template <class W>
void embed(const model_shape& s, matrix<const W> words, const packed_batch& batch,
           activations<W>& a) {
  using T = arithmetic<W>;
  const matrix<T> stream = a.inputs[0].view();
  for (std::int64_t i = 0; i < stream.rows; ++i) {
    T* const to = stream.row(i);
    if (i >= a.tokens) {
      std::fill_n(to, s.width, T(0));
      continue;
    }
    const W* const word = words.row(batch.inputs[static_cast<std::size_t>(i)]);
    for (int j = 0; j < s.width; ++j) to[j] = static_cast<T>(word[j]);
  }
}

// What the head reads of the stream behind the last block.
template <class W>
void read_out(const model_shape& s, const model_weights<const W>& w, const packed_batch& batch,
              activations<W>& a) {
  using T = arithmetic<W>;
  const std::size_t last = w.blocks.size();
  const matrix<T> output = a.inputs[a.left == leave::nothing ? last % 2 : last].view();
  const matrix<T> scored = a.scored.view();
  for (std::int64_t i = 0; i < scored.rows; ++i) {
    std::copy_n(output.row(batch.scored[static_cast<std::size_t>(i)]), s.width, scored.row(i));
  }
  norm_forward<W>(s.norm_epsilon, matrix<const T>(scored), w.output_gain.data, a.hidden.view());
}

}  // namespace align::detail
