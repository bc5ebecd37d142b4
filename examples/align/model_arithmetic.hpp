// The transformer's arithmetic, for any scalar: model.cpp compiles it for float; the tests, which
// compare it with finite differences, for double. Every `*_backward` stands beside its `*_forward`.
#pragma once

#include <cmath>
#include <numbers>
#include <stdexcept>

#include "model.hpp"

namespace align {
namespace detail {

template <class T>
struct block_weights {
  matrix_of<T> attention_gain, query_key_value, mix, mlp_gain, up, down;
};

// Names for the stretches of the flat row of parameters, or of their gradient.
template <class T>
struct weights {
  matrix_of<T> words, positions;
  std::vector<block_weights<T>> blocks;
  matrix_of<T> output_gain, head;
};

// Calls take(rows, columns) for every weight, in the order in which they lie in the flat row.
template <class T, class Take>
weights<T> carve(const model_shape& s, const Take& take) {
  const int c = s.width;
  // Braces fix the order of evaluation, and with it the layout.
  weights<T> w{take(s.vocabulary, c), take(s.context, c), {}, take(1, c), take(s.vocabulary, c)};
  for (int i = 0; i < s.layers; ++i) {
    w.blocks.push_back(block_weights<T>{take(1, c), take(c, 3 * c), take(c, c), take(1, c),
                                        take(c, 4 * c), take(4 * c, c)});
  }
  return w;
}

template <class T>
weights<T> carve(const model_shape& shape, std::span<T> flat) {
  if (flat.size() != parameter_count(shape)) {
    throw std::invalid_argument("parameters: their number does not fit the shape of the model");
  }
  T* next = flat.data();
  return carve<T>(shape, [&next](int rows, int columns) {
    T* here = next;
    next += static_cast<std::ptrdiff_t>(rows) * columns;
    return matrix_of<T>(here, rows, columns);
  });
}

// ---- RMSNorm: y = gain * x / rms(x) -------------------------------------------------------------

template <class T>
Eigen::Array<T, Eigen::Dynamic, 1> inverse_rms(const matrix<T>& x) {
  return (x.array().square().rowwise().mean() + T(1e-5)).rsqrt();
}

template <class T>
void norm_forward(const matrix<T>& x, const matrix_of<const T>& gain, matrix<T> y) {
  const auto scale = inverse_rms(x);
  y.array() = (x.array().colwise() * scale).rowwise() * gain.row(0).array();
}

// Adds to `d_x`; `d_y` is overwritten.
template <class T>
void norm_backward(const matrix<T>& x, const matrix_of<const T>& gain, matrix<T> d_y,
                   matrix_of<T>& d_gain, matrix<T> d_x) {
  const auto scale = inverse_rms(x);
  d_gain.array() += ((d_y.array() * x.array()).colwise() * scale).colwise().sum();
  d_y.array().rowwise() *= gain.row(0).array();
  const Eigen::Array<T, Eigen::Dynamic, 1> along =
      (d_y.array() * x.array()).rowwise().mean() * scale.cube();
  d_x.array() += d_y.array().colwise() * scale - x.array().colwise() * along;
}

// ---- GELU (tanh form) ---------------------------------------------------------------------------

template <class T>
constexpr T gelu_scale = T(std::numbers::sqrt2 * std::numbers::inv_sqrtpi);
template <class T>
constexpr T gelu_cubic = T(0.044715);

template <class T>
void gelu_forward(const matrix<T>& x, matrix<T> y) {
  const auto u = x.array();
  y.array() =
      T(0.5) * u * (T(1) + (gelu_scale<T> * u * (T(1) + gelu_cubic<T> * u.square())).tanh());
}

// Turns dL/dy into dL/dx, in place.
template <class T>
void gelu_backward(const matrix<T>& x, matrix<T> d) {
  for (Eigen::Index i = 0; i < x.rows(); ++i) {
    const auto u = x.row(i).array();
    const Eigen::Array<T, 1, Eigen::Dynamic> t =
        (gelu_scale<T> * u * (T(1) + gelu_cubic<T> * u.square())).tanh();
    d.row(i).array() *= T(0.5) * (T(1) + t) + T(0.5) * u * (T(1) - t.square()) * gelu_scale<T> *
                                                  (T(1) + T(3) * gelu_cubic<T> * u.square());
  }
}

// ---- causal attention ---------------------------------------------------------------------------

// The attention probabilities of all heads and sequences lie back to back, each length x length.
inline std::ptrdiff_t attention_size(const model_shape& shape, const packed_batch& batch) {
  std::ptrdiff_t size = 0;
  for (std::size_t s = 0; s < batch.sequences(); ++s) {
    const std::ptrdiff_t length = batch.offsets[s + 1] - batch.offsets[s];
    size += shape.heads * length * length;
  }
  return size;
}

// Calls visit(first row, length, first column of the head, offset of its probabilities).
template <class Visit>
void for_each_head(const model_shape& shape, const packed_batch& batch, const Visit& visit) {
  const int head_width = shape.width / shape.heads;
  std::ptrdiff_t at = 0;
  for (std::size_t s = 0; s < batch.sequences(); ++s) {
    const int first = batch.offsets[s];
    const int length = batch.offsets[s + 1] - first;
    for (int h = 0; h < shape.heads; ++h) {
      visit(first, length, h * head_width, at);
      at += static_cast<std::ptrdiff_t>(length) * length;
    }
  }
}

template <class T>
void attention_forward(const model_shape& shape, const packed_batch& batch, const matrix<T>& qkv,
                       matrix<T> probabilities, matrix<T> mixed) {
  const int c = shape.width, width = c / shape.heads;
  const T scale = T(1) / std::sqrt(T(width));
  for_each_head(shape, batch, [&](int first, int length, int column, std::ptrdiff_t at) {
    const auto q = qkv.block(first, column, length, width);
    const auto k = qkv.block(first, c + column, length, width);
    const auto v = qkv.block(first, 2 * c + column, length, width);
    matrix<T> p(probabilities.data() + at, length, length);
    p.noalias() = q * k.transpose();
    for (int i = 0; i < length; ++i) {
      auto seen = p.row(i).head(i + 1).array();
      seen = ((seen - seen.maxCoeff()) * scale).exp();
      seen /= seen.sum();
      p.row(i).tail(length - i - 1).setZero();
    }
    mixed.block(first, column, length, width).noalias() = p * v;
  });
}

template <class T>
void attention_backward(const model_shape& shape, const packed_batch& batch, const matrix<T>& qkv,
                        const matrix<T>& probabilities, const matrix<T>& d_mixed, matrix<T> d_qkv,
                        tensor<T>& scratch) {
  const int c = shape.width, width = c / shape.heads;
  const T scale = T(1) / std::sqrt(T(width));
  for_each_head(shape, batch, [&](int first, int length, int column, std::ptrdiff_t at) {
    const auto q = qkv.block(first, column, length, width);
    const auto k = qkv.block(first, c + column, length, width);
    const auto v = qkv.block(first, 2 * c + column, length, width);
    const auto d_out = d_mixed.block(first, column, length, width);
    const const_matrix<T> p(probabilities.data() + at, length, length);
    matrix<T> d_scores = scratch.reshape(length, length);
    d_scores.noalias() = d_out * v.transpose();
    for (int i = 0; i < length; ++i) {
      const T along = d_scores.row(i).dot(p.row(i));
      // Zero above the diagonal, because the probabilities are.
      d_scores.row(i).array() = scale * p.row(i).array() * (d_scores.row(i).array() - along);
    }
    d_qkv.block(first, column, length, width).noalias() = d_scores * k;
    d_qkv.block(first, c + column, length, width).noalias() = d_scores.transpose() * q;
    d_qkv.block(first, 2 * c + column, length, width).noalias() = p.transpose() * d_out;
  });
}

}  // namespace detail

template <class T>
matrix_of<T> head_of(const model_shape& shape, std::span<T> flat) {
  return detail::carve(shape, flat).head;
}

template <class T>
void forward(const model_shape& shape, std::span<const T> parameters, const packed_batch& batch,
             activations<T>& a) {
  const auto w = detail::carve(shape, parameters);
  const int c = shape.width;
  const auto n = static_cast<Eigen::Index>(batch.inputs.size());
  a.blocks.resize(w.blocks.size());

  matrix<T> stream = a.blocks.empty() ? a.output.reshape(n, c) : a.blocks[0].input.reshape(n, c);
  for (std::size_t s = 0; s < batch.sequences(); ++s) {
    const int first = batch.offsets[s], end = batch.offsets[s + 1];
    if (end - first > shape.context) {
      throw std::invalid_argument("batch: a sequence is longer than the context of the model");
    }
    for (int t = first; t < end; ++t) {
      stream.row(t) = w.words.row(batch.inputs[std::size_t(t)]) + w.positions.row(t - first);
    }
  }

  for (std::size_t i = 0; i < w.blocks.size(); ++i) {
    const auto& weight = w.blocks[i];
    auto& b = a.blocks[i];
    const matrix<T> input = b.input.view();
    detail::norm_forward<T>(input, weight.attention_gain, b.normed_input.reshape(n, c));
    b.query_key_value.reshape(n, 3 * c).noalias() = b.normed_input.view() * weight.query_key_value;
    detail::attention_forward<T>(shape, batch, b.query_key_value.view(),
                                 b.attention.reshape(1, detail::attention_size(shape, batch)),
                                 b.mixed.reshape(n, c));
    matrix<T> middle = b.middle.reshape(n, c);
    middle = input;
    middle.noalias() += b.mixed.view() * weight.mix;

    detail::norm_forward<T>(middle, weight.mlp_gain, b.normed_middle.reshape(n, c));
    b.up.reshape(n, 4 * c).noalias() = b.normed_middle.view() * weight.up;
    detail::gelu_forward<T>(b.up.view(), b.activated.reshape(n, 4 * c));
    const bool last = i + 1 == w.blocks.size();
    matrix<T> output = last ? a.output.reshape(n, c) : a.blocks[i + 1].input.reshape(n, c);
    output = middle;
    output.noalias() += b.activated.view() * weight.down;
  }

  const auto scored = static_cast<Eigen::Index>(batch.scored.size());
  matrix<T> compact = a.scored.reshape(scored, c);
  for (Eigen::Index i = 0; i < scored; ++i) {
    compact.row(i) = a.output.view().row(batch.scored[std::size_t(i)]);
  }
  detail::norm_forward<T>(compact, w.output_gain, a.normed_scored.reshape(scored, c));
}

template <class T>
void backward(const model_shape& shape, std::span<const T> parameters, const packed_batch& batch,
              activations<T>& a, std::span<T> gradient) {
  const auto w = detail::carve(shape, parameters);
  auto d = detail::carve(shape, gradient);
  const int c = shape.width;
  const auto n = static_cast<Eigen::Index>(batch.inputs.size());
  const auto scored = static_cast<Eigen::Index>(batch.scored.size());

  matrix<T> d_scored = a.d_scored.reshape(scored, c);
  d_scored.setZero();
  detail::norm_backward<T>(a.scored.view(), w.output_gain, a.d_normed_scored.view(), d.output_gain,
                           d_scored);

  matrix<T> d_stream = a.d_stream.reshape(n, c);
  d_stream.setZero();
  for (Eigen::Index i = 0; i < scored; ++i) {
    d_stream.row(batch.scored[std::size_t(i)]) += d_scored.row(i);
  }

  for (std::size_t i = w.blocks.size(); i-- > 0;) {
    const auto& weight = w.blocks[i];
    auto& d_weight = d.blocks[i];
    auto& b = a.blocks[i];

    matrix<T> d_up = a.d_wide.reshape(n, 4 * c);
    d_up.noalias() = d_stream * weight.down.transpose();
    d_weight.down.noalias() += b.activated.view().transpose() * d_stream;
    detail::gelu_backward<T>(b.up.view(), d_up);
    d_weight.up.noalias() += b.normed_middle.view().transpose() * d_up;
    matrix<T> d_narrow = a.d_narrow.reshape(n, c);
    d_narrow.noalias() = d_up * weight.up.transpose();
    detail::norm_backward<T>(b.middle.view(), weight.mlp_gain, d_narrow, d_weight.mlp_gain,
                             d_stream);

    d_narrow.noalias() = d_stream * weight.mix.transpose();
    d_weight.mix.noalias() += b.mixed.view().transpose() * d_stream;
    matrix<T> d_qkv = a.d_wide.reshape(n, 3 * c);
    detail::attention_backward<T>(shape, batch, b.query_key_value.view(), b.attention.view(),
                                  d_narrow, d_qkv, a.d_scores);
    d_weight.query_key_value.noalias() += b.normed_input.view().transpose() * d_qkv;
    d_narrow.noalias() = d_qkv * weight.query_key_value.transpose();
    detail::norm_backward<T>(b.input.view(), weight.attention_gain, d_narrow,
                             d_weight.attention_gain, d_stream);
  }

  for (std::size_t s = 0; s < batch.sequences(); ++s) {
    const int first = batch.offsets[s], end = batch.offsets[s + 1];
    for (int t = first; t < end; ++t) {
      d.words.row(batch.inputs[std::size_t(t)]) += d_stream.row(t);
      d.positions.row(t - first) += d_stream.row(t);
    }
  }
}

template <class T>
row_major<T> logits(const model_shape& shape, std::span<const T> parameters,
                    const activations<T>& a) {
  return a.normed_scored.view() * head_of(shape, parameters).transpose();
}

}  // namespace align
