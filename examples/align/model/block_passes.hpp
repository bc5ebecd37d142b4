// One block of the model, forward and backward, in the parts between which all rows of a batch must
// have come as far. Rows may be any part of the batch.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>

#include "model/attention.hpp"
#include "model/transformer.hpp"

namespace align::detail {

// Rows of a weight whose gradient is one product; fixed, so that sums are rounded alike on every
// machine.
constexpr std::int64_t gradient_rows = 192;

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
      low_rank_forward<W>(w_.down.down, scale_, piece(a_.activated), piece(b_.low.down),
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

}  // namespace align::detail
