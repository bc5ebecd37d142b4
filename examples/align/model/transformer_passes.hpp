// The passes of transformer.hpp, for any W: transformer.cpp compiles them for float and bfloat16;
// the tests, which compare them with finite differences, for double. Rows of tokens are shared
// among threads in pieces, each of which goes through everything between two attentions while it is
// in the cache.
#pragma once

#include <functional>
#include <stdexcept>
#include <utility>

#include "model/batch_layout.hpp"
#include "model/block_passes.hpp"

namespace align {

template <class W>
std::size_t activations<W>::bytes() const {
  std::size_t sum = 0;
  const auto add = [&sum](const auto&... tensors) { sum += (tensors.bytes() + ...); };
  const auto add_low = [&](const adapter_activations<W>& a) {
    add(a.query_key_value, a.mix, a.gate_up, a.down);
  };
  for (const auto& input : inputs) add(input);
  for (const auto& b : blocks) {
    add(b.query_key_value, b.log_normaliser, b.middle, b.gate_up, b.mixed);
    add_low(b.low);
  }
  add(scored, hidden, d_hidden, normed_input, normed_middle, activated, d_output, d_middle,
      d_gate_up, d_query_key_value, low, d_stream, d_activated, wide_d_gate_up, d_normed, d_mixed,
      wide_d_query_key_value, d_gain);
  add_low(d_low);
  return sum;
}

template <class W>
std::size_t activation_bytes(const model_shape& s, const lora_settings& lora, std::size_t tokens,
                             std::size_t scored, leave left) {
  constexpr std::size_t wide = sizeof(arithmetic<W>), narrow = sizeof(W);
  const auto size = [](int n) { return static_cast<std::size_t>(n); };
  const std::size_t width = size(s.width), feed_forward = size(s.feed_forward);
  const std::size_t layers = size(s.layers), heads = size(s.heads);
  const std::size_t queries = heads * size(s.head_width);
  const std::size_t qkv = queries + 2 * size(s.key_value_heads) * size(s.head_width);
  const std::size_t low = 7 * size(lora.rank);
  const std::size_t tile = detail::tile_rows, rows = (tokens + tile - 1) / tile * tile;
  const std::size_t pieces = (rows + detail::piece_rows - 1) / detail::piece_rows;

  const std::size_t streams = left == leave::nothing ? 2 : layers + 1;
  const std::size_t blocks = left == leave::everything ? layers : 1;
  std::size_t row =
      streams * width * wide +
      blocks * ((qkv + heads + width + 2 * feed_forward) * wide + (queries + low) * narrow) +
      (2 * width + feed_forward) * narrow + 3 * size(lora.rank) * wide;
  std::size_t each_scored = width * (wide + narrow), fixed = 0;
  if (left != leave::nothing) {
    row += (2 * width + low) * narrow + (2 * width + queries + 3 * feed_forward + qkv) * wide;
    if (narrow < wide) row += (2 * feed_forward + qkv) * narrow;
    each_scored += width * narrow;
    fixed = pieces * width * wide;
  }
  return rows * row + scored * each_scored + fixed;
}

template <class W>
void forward(const model_view<W>& model, const packed_batch& batch, leave left, activations<W>& a,
             workers& on) {
  const model_shape& s = model.shape;
  const model_weights<const W> w = carve(s, model.parameters, model.lora, model.adapters);
  detail::lay_out(s, batch, left, a);
  const std::int64_t rows = detail::padded_rows(a);
  detail::lay_out_adapters(model, rows, a);

  detail::embed(s, w.words, batch, a);
  const auto block = [&](std::size_t i) {
    return detail::block_pass<W>(s, model.lora.scale(), w.blocks[i], a, i);
  };
  for (std::size_t i = 0; i <= w.blocks.size(); ++i) {
    detail::on_pieces(rows, on, [&](std::int64_t, std::int64_t first, std::int64_t count) {
      if (i > 0) {
        auto before = block(i - 1);
        before.feed_forward_inputs(first, count);
        before.feed_forward(first, count);
      }
      if (i < w.blocks.size()) block(i).attention_inputs(first, count);
    });
    if (i == w.blocks.size()) break;
    detail::on_groups(s, batch, on, [&](std::int64_t first, std::int64_t length, int group) {
      block(i).attention(first, length, group);
    });
  }

  detail::read_out(s, w, batch, a);
}

template <class W>
void backward(const model_view<W>& model, const packed_batch& batch, activations<W>& a,
              const model_gradient<arithmetic<W>>& gradient, workers& on) {
  using T = arithmetic<W>;
  const model_shape& s = model.shape;
  const model_weights<const W> w = carve(s, model.parameters, model.lora, model.adapters);
  const model_weights<T> d = carve(s, gradient.parameters, model.lora, gradient.adapters);
  if (a.left == leave::nothing) {
    throw std::invalid_argument("backward: the forward pass left nothing for it");
  }
  const bool frozen = gradient.parameters.empty();
  const std::int64_t rows = detail::padded_rows(a);
  detail::lay_out_backward(s, rows, a);
  if (!model.adapters.empty()) detail::lay_out_low(model.lora, rows, a.d_low);

  // Gains are summed over rows: by piece, then over the pieces in their order.
  const std::int64_t pieces = (rows + detail::piece_rows - 1) / detail::piece_rows;
  const auto with_gain = [&](matrix<T> d_gain, const auto& use) {
    const matrix<T> sums = a.d_gain.reshape(pieces, s.width);
    std::fill_n(sums.data, pieces * s.width, T(0));
    detail::on_pieces(rows, on, [&](std::int64_t i, std::int64_t first, std::int64_t count) {
      use(first, count, frozen ? nullptr : sums.row(i));
    });
    if (frozen) return;
    for (std::int64_t i = 0; i < pieces; ++i) {
      array_of(d_gain.data, s.width) += array_of(sums.row(i), s.width);
    }
  };

  const matrix<T> d_stream = a.d_stream.view();
  std::fill_n(d_stream.data, rows * s.width, T(0));
  {
    const matrix<const T> scored = a.scored.view();
    const matrix<const W> d_hidden = a.d_hidden.view();
    std::vector<T> d_row(static_cast<std::size_t>(s.width));
    for (std::int64_t i = 0; i < scored.rows; ++i) {
      for (int j = 0; j < s.width; ++j) {
        d_row[static_cast<std::size_t>(j)] = static_cast<T>(d_hidden.row(i)[j]);
      }
      norm_backward<W>(s.norm_epsilon, rows_of(scored, i, 1), w.output_gain.data,
                       matrix<const T>(d_row.data(), 1, s.width), d.output_gain.data,
                       rows_of(d_stream, batch.scored[static_cast<std::size_t>(i)], 1));
    }
  }

  for (std::size_t i = w.blocks.size(); i-- > 0;) {
    detail::block_backward<W> block(s, model.lora.scale(), w.blocks[i], a, i);
    const bool again = a.left == leave::inputs;
    if (again) {
      detail::on_pieces(rows, on, [&](std::int64_t, std::int64_t first, std::int64_t count) {
        block.attention_inputs(first, count);
      });
      detail::on_groups(s, batch, on, [&](std::int64_t first, std::int64_t length, int group) {
        block.attention(first, length, group);
      });
    }
    with_gain(d.blocks[i].feed_forward_gain,
              [&](std::int64_t first, std::int64_t count, T* d_gain) {
                if (again) block.feed_forward_inputs(first, count);
                block.feed_forward_back(first, count, d_gain);
              });
    detail::on_groups(s, batch, on, [&](std::int64_t first, std::int64_t length, int group) {
      block.attention_back(first, length, group);
    });
    with_gain(d.blocks[i].attention_gain, [&](std::int64_t first, std::int64_t count, T* d_gain) {
      block.attention_inputs_back(first, count, d_gain);
    });
    std::vector<std::function<void()>> products;
    block.weight_gradients(d.blocks[i], [&](auto product) { products.emplace_back(product); });
    on(products.size(), [&](std::size_t j) { products[j](); });
  }

  if (frozen) return;
  for (std::int64_t t = 0; t < a.tokens; ++t) {
    array_of(d.words.row(batch.inputs[static_cast<std::size_t>(t)]), s.width) +=
        array_of(d_stream.row(t), s.width);
  }
}

}  // namespace align
