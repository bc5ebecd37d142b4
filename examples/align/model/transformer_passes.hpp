// The passes of transformer.hpp, for any W: transformer.cpp compiles them for float and bfloat16;
// the tests, which compare them with finite differences, for double. Rows of tokens are shared
// among threads in pieces, each of which goes through everything between two attentions while it is
// in the cache.
#pragma once

#include <algorithm>
#include <functional>
#include <stdexcept>
#include <utility>

#include "model/attention.hpp"
#include "model/transformer.hpp"

namespace align {
namespace detail {

// Fixed, so that sums are rounded alike on every machine.
constexpr std::int64_t piece_rows = 128;
constexpr std::int64_t gradient_rows = 192;

// Batches are filled up with rows of zeros, which stay zeros, to this many: products come in few
// sizes then, and those that make code for a size make it once.
constexpr std::int64_t tile_rows = 32;

// One block's forward pass, in the parts between which all rows must have come as far.
template <class W>
class block_pass {
  using T = arithmetic<W>;

 public:
  block_pass(const model_shape& shape, double scale, const block_weights<const W>& weights,
             activations<W>& a, std::size_t index)
      : shape_(shape),
        scale_(scale),
        w_(weights),
        a_(a),
        b_(a.blocks[a.left == leave::everything ? index : 0]),
        input_(a.inputs[a.left == leave::nothing ? index % 2 : index].view()),
        output_(a.inputs[a.left == leave::nothing ? (index + 1) % 2 : index + 1].view()) {}

  // input -> queries, keys and values, turned.
  void attention_inputs(std::int64_t first, std::int64_t count) {
    const auto piece = [&](auto& t) { return rows_of(t.view(), first, count); };
    norm_forward<W>(shape_.norm_epsilon, rows_of(input_, first, count), w_.attention_gain.data,
                    piece(a_.normed_input));
    const matrix<T> qkv = piece(b_.query_key_value);
    linear_forward<W>(w_.query_key_value, scale_, piece(a_.normed_input), qkv,
                      piece(b_.low.query_key_value), low(first, count, w_.query_key_value));
    turn_heads<T>(a_.turns, positions(first, count), shape_.heads + shape_.key_value_heads,
                  shape_.head_width, qkv, false);
  }

  // -> what attention mixes, one sequence and group of heads at a time.
  void attention(std::int64_t first, std::int64_t length, int group) {
    attention_forward<W>(attention_layout{shape_}, first, length, group, b_.query_key_value.view(),
                         b_.log_normaliser.view(), b_.mixed.view());
  }

  // -> the stream in the middle of the block, and gate and up of what follows.
  void feed_forward_inputs(std::int64_t first, std::int64_t count) {
    const auto piece = [&](auto& t) { return rows_of(t.view(), first, count); };
    const matrix<T> middle = piece(b_.middle);
    for (std::int64_t i = 0; i < count; ++i) {
      std::copy_n(input_.row(first + i), input_.columns, middle.row(i));
    }
    linear_forward<W>(w_.mix, scale_, piece(b_.mixed), middle, piece(b_.low.mix),
                      low(first, count, w_.mix), onto::what_is_there);
    norm_forward<W>(shape_.norm_epsilon, matrix<const T>(middle), w_.feed_forward_gain.data,
                    piece(a_.normed_middle));
    linear_forward<W>(w_.gate_up, scale_, piece(a_.normed_middle), piece(b_.gate_up),
                      piece(b_.low.gate_up), low(first, count, w_.gate_up));
  }

  // -> output.
  void feed_forward(std::int64_t first, std::int64_t count) {
    const auto piece = [&](auto& t) { return rows_of(t.view(), first, count); };
    swiglu_forward<W>(matrix<const T>(piece(b_.gate_up)), piece(a_.activated));
    const matrix<T> output = rows_of(output_, first, count), middle = piece(b_.middle);
    for (std::int64_t i = 0; i < count; ++i) {
      std::copy_n(middle.row(i), middle.columns, output.row(i));
    }
    linear_forward<W>(w_.down, scale_, piece(a_.activated), output, piece(b_.low.down),
                      low(first, count, w_.down), onto::what_is_there);
  }

 protected:
  std::span<const std::int32_t> positions(std::int64_t first, std::int64_t count) const {
    return std::span{a_.positions}.subspan(static_cast<std::size_t>(first),
                                           static_cast<std::size_t>(count));
  }

  matrix<T> low(std::int64_t first, std::int64_t count, const linear<const W>& of) {
    return columns_of(rows_of(a_.low.view(), first, count), 0, of.down.rows);
  }

  const model_shape& shape_;
  double scale_;
  const block_weights<const W>& w_;
  activations<W>& a_;
  block_activations<W>& b_;
  matrix<T> input_, output_;
};

// The same, and its way back.
template <class W>
class block_backward : public block_pass<W> {
  using T = arithmetic<W>;
  using base = block_pass<W>;
  using base::a_, base::b_, base::shape_, base::scale_, base::w_, base::low;

 public:
  using base::base;

  // dL/doutput in d_stream -> dL/dmiddle there, dL/dmixed.
  void feed_forward_back(std::int64_t first, std::int64_t count, T* d_gain) {
    const auto piece = [&](auto& t) { return rows_of(t.view(), first, count); };
    const matrix<T> d_stream = piece(a_.d_stream);
    const matrix<const T> gate_up = piece(b_.gate_up);
    if (a_.left == leave::everything) {
      norm_forward<W>(shape_.norm_epsilon, matrix<const T>(piece(b_.middle)),
                      w_.feed_forward_gain.data, piece(a_.normed_middle));
    }
    swiglu_forward<W>(gate_up, piece(a_.activated));
    if (a_.left == leave::inputs) {
      low_rank_forward<W>(w_.down, scale_, piece(a_.activated), piece(b_.low.down),
                          low(first, count, w_.down));
    }
    store_rows<W>(d_stream, piece(a_.d_output));
    const matrix<T> d_activated = piece(a_.d_activated), d_gate_up = piece(a_.wide_d_gate_up);
    const matrix<T> d_normed = piece(a_.d_normed);
    linear_backward<W>(w_.down, scale_, piece(a_.d_output), d_activated, piece(a_.d_low.down),
                       low(first, count, w_.down));
    swiglu_backward<T>(gate_up, d_activated, d_gate_up);
    linear_backward<W>(w_.gate_up, scale_,
                       as_operand<W>(d_gate_up, narrow(a_.d_gate_up, first, count)), d_normed,
                       piece(a_.d_low.gate_up), low(first, count, w_.gate_up));
    norm_backward<W>(shape_.norm_epsilon, matrix<const T>(piece(b_.middle)),
                     w_.feed_forward_gain.data, matrix<const T>(d_normed), d_gain, d_stream);
    store_rows<W>(d_stream, piece(a_.d_middle));
    linear_backward<W>(w_.mix, scale_, piece(a_.d_middle), piece(a_.d_mixed), piece(a_.d_low.mix),
                       low(first, count, w_.mix));
  }

  // -> dL/d(queries, keys and values), still turned.
  void attention_back(std::int64_t first, std::int64_t length, int group) {
    attention_backward<T>(attention_layout{shape_}, first, length, group, b_.query_key_value.view(),
                          b_.log_normaliser.view(), a_.d_mixed.view(),
                          a_.wide_d_query_key_value.view());
  }

  // -> dL/dinput in d_stream.
  void attention_inputs_back(std::int64_t first, std::int64_t count, T* d_gain) {
    const auto piece = [&](auto& t) { return rows_of(t.view(), first, count); };
    const matrix<T> d_qkv = piece(a_.wide_d_query_key_value), d_normed = piece(a_.d_normed);
    const matrix<const T> input = rows_of(this->input_, first, count);
    turn_heads<T>(a_.turns, this->positions(first, count), shape_.heads + shape_.key_value_heads,
                  shape_.head_width, d_qkv, true);
    linear_backward<W>(w_.query_key_value, scale_,
                       as_operand<W>(d_qkv, narrow(a_.d_query_key_value, first, count)), d_normed,
                       piece(a_.d_low.query_key_value), low(first, count, w_.query_key_value));
    if (a_.left == leave::everything) {
      norm_forward<W>(shape_.norm_epsilon, input, w_.attention_gain.data, piece(a_.normed_input));
    }
    norm_backward<W>(shape_.norm_epsilon, input, w_.attention_gain.data, matrix<const T>(d_normed),
                     d_gain, piece(a_.d_stream));
  }

  template <class Add>
  void weight_gradients(const block_weights<T>& d, const Add& add) {
    const auto gradients = [&](const linear<T>& of, tensor<W>& x, tensor<W>& u, matrix<const W> d_y,
                               tensor<W>& d_u) {
      linear_gradients<W>(of, x.view(), u.view(), d_y, d_u.view(), gradient_rows, add);
    };
    gradients(d.down, a_.activated, b_.low.down, a_.d_output.view(), a_.d_low.down);
    gradients(d.gate_up, a_.normed_middle, b_.low.gate_up,
              operand_of(a_.wide_d_gate_up, a_.d_gate_up), a_.d_low.gate_up);
    gradients(d.mix, b_.mixed, b_.low.mix, a_.d_middle.view(), a_.d_low.mix);
    gradients(d.query_key_value, a_.normed_input, b_.low.query_key_value,
              operand_of(a_.wide_d_query_key_value, a_.d_query_key_value),
              a_.d_low.query_key_value);
  }

 private:
  static matrix<W> narrow(tensor<W>& t, std::int64_t first, std::int64_t count) {
    return rows_of(t.view(), first, count);
  }

  // What as_operand gave, of all rows.
  static matrix<const W> operand_of(tensor<T>& wide, tensor<W>& narrow) {
    if constexpr (std::same_as<W, T>) {
      return wide.view();
    } else {
      return narrow.view();
    }
  }
};

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

}  // namespace detail

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
  if (!model.adapters.empty()) {
    for (auto& b : a.blocks) detail::lay_out_low(model.lora, rows, b.low);
    a.low.reshape(rows, std::int64_t{3} * model.lora.rank);
  }

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
