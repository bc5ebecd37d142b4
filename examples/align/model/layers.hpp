// What happens to rows between matrix products: RMSNorm, the rotation of queries and keys, SwiGLU,
// the low-rank adapters. Every `*_backward` stands beside its `*_forward`. Rows may be any part of
// a batch, so that threads share them.
#pragma once

#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

#include "model/product.hpp"
#include "model/weights.hpp"

namespace align {

// ---- RMSNorm (Zhang and Sennrich 2019, arXiv 1910.07467): y = gain * x / rms(x) -----------------

template <class T>
using row_array = Eigen::Array<T, 1, Eigen::Dynamic>;

template <class T>
T inverse_rms(const T* x, std::int64_t width, double epsilon) {
  return T(1) / std::sqrt(array_of(x, width).square().mean() + static_cast<T>(epsilon));
}

template <class W>
row_array<arithmetic<W>> widened_row(const W* x, std::int64_t width) {
  row_array<arithmetic<W>> wide(width);
  for (std::int64_t j = 0; j < width; ++j) wide[j] = static_cast<arithmetic<W>>(x[j]);
  return wide;
}

template <class W>
void norm_forward(double epsilon, matrix<const arithmetic<W>> x, const W* gain, matrix<W> y) {
  using T = arithmetic<W>;
  const row_array<T> gains = widened_row(gain, x.columns);
  for (std::int64_t i = 0; i < x.rows; ++i) {
    const T* const in = x.row(i);
    const T scale = inverse_rms(in, x.columns, epsilon);
    W* const out = y.row(i);
    for (std::int64_t j = 0; j < x.columns; ++j) out[j] = W(in[j] * scale * gains[j]);
  }
}

// Adds to `d_x`, and to `d_gain` where that is wanted.
template <class W>
void norm_backward(double epsilon, matrix<const arithmetic<W>> x, const W* gain,
                   matrix<const arithmetic<W>> d_y, arithmetic<W>* d_gain,
                   matrix<arithmetic<W>> d_x) {
  using T = arithmetic<W>;
  const row_array<T> gains = widened_row(gain, x.columns);
  for (std::int64_t i = 0; i < x.rows; ++i) {
    const auto in = array_of(x.row(i), x.columns), d_out = array_of(d_y.row(i), x.columns);
    const T scale = inverse_rms(x.row(i), x.columns, epsilon);
    const T along = (d_out * gains * in).mean() * scale * scale * scale;
    array_of(d_x.row(i), x.columns) += d_out * gains * scale - in * along;
    if (d_gain != nullptr) array_of(d_gain, x.columns) += d_out * in * scale;
  }
}

// ---- RoPE (Su et al. 2021, arXiv 2104.09864): elements 2i and 2i + 1 of a head turn together
// -----

// Cosines and sines of position times frequency, up to the longest sequence met so far.
template <class T>
class rotation {
 public:
  void reach(const model_shape& shape, std::int64_t positions) {
    pairs_ = shape.head_width / 2;
    const auto known = static_cast<std::int64_t>(turns_.size()) / (2 * pairs_);
    for (std::int64_t p = known; p < positions; ++p) {
      for (std::int64_t i = 0; i < pairs_; ++i) {
        double frequency =
            std::pow(shape.rope_base, -static_cast<double>(i) / static_cast<double>(pairs_));
        if (!shape.rope_divisors.empty()) {
          frequency /= double{shape.rope_divisors[static_cast<std::size_t>(i)]};
        }
        const double angle = static_cast<double>(p) * frequency;
        turns_.push_back(static_cast<T>(std::cos(angle)));
        turns_.push_back(static_cast<T>(std::sin(angle)));
      }
    }
  }

  // Turns a head at its position forward, or back: the gradient of one is the other.
  void turn(T* head, std::int64_t position, bool back) const {
    const T* t = turns_.data() + 2 * pairs_ * position;
    for (std::int64_t i = 0; i < pairs_; ++i) {
      const T c = t[2 * i], s = back ? -t[2 * i + 1] : t[2 * i + 1];
      const T x = head[2 * i], y = head[2 * i + 1];
      head[2 * i] = x * c - y * s;
      head[2 * i + 1] = x * s + y * c;
    }
  }

 private:
  std::int64_t pairs_ = 1;
  std::vector<T> turns_;
};

// Of the first `heads` heads of each row: those of the queries, then of the keys.
template <class T>
void turn_heads(const rotation<T>& by, std::span<const std::int32_t> positions, int heads,
                int head_width, matrix<T> rows, bool back) {
  for (std::int64_t i = 0; i < rows.rows; ++i) {
    for (int h = 0; h < heads; ++h) {
      by.turn(rows.row(i) + std::int64_t{h} * head_width, positions[static_cast<std::size_t>(i)],
              back);
    }
  }
}

// ---- SwiGLU (Shazeer 2020, arXiv 2002.05202): y = up * gate * sigmoid(gate)
// -----------------------

template <class W>
void swiglu_forward(matrix<const arithmetic<W>> gate_up, matrix<W> y) {
  using T = arithmetic<W>;
  for (std::int64_t i = 0; i < y.rows; ++i) {
    const auto gate = array_of(gate_up.row(i), y.columns);
    const auto up = array_of(gate_up.row(i) + y.columns, y.columns);
    if constexpr (std::same_as<W, T>) {
      array_of(y.row(i), y.columns) = up * gate / (T(1) + (-gate).exp());
    } else {
      const row_array<T> value = up * gate / (T(1) + (-gate).exp());
      for (std::int64_t j = 0; j < y.columns; ++j) y.row(i)[j] = W(value[j]);
    }
  }
}

// `d_gate_up` may not be `gate_up`.
template <class T>
void swiglu_backward(matrix<const T> gate_up, matrix<const T> d_y, matrix<T> d_gate_up) {
  for (std::int64_t i = 0; i < d_y.rows; ++i) {
    const auto gate = array_of(gate_up.row(i), d_y.columns);
    const auto up = array_of(gate_up.row(i) + d_y.columns, d_y.columns);
    const auto d = array_of(d_y.row(i), d_y.columns);
    const row_array<T> sigmoid = T(1) / (T(1) + (-gate).exp());
    array_of(d_gate_up.row(i), d_y.columns) = d * up * sigmoid * (T(1) + gate * (T(1) - sigmoid));
    array_of(d_gate_up.row(i) + d_y.columns, d_y.columns) = d * gate * sigmoid;
  }
}

// ---- a linear layer with its adapters
// ---------------------------------------------------------------

// u = scale x A^T; nothing where A has no data. `wide` is memory of u's shape.
template <class W>
void low_rank_forward(matrix<const W> down, double scale, matrix<const W> x, matrix<W> u,
                      matrix<arithmetic<W>> wide) {
  using T = arithmetic<W>;
  if (down.data == nullptr) return;
  multiply<W>(plain<W>(x), transposed<W>(down), wide);
  for (std::int64_t i = 0; i < wide.rows; ++i) {
    for (std::int64_t j = 0; j < wide.columns; ++j) u.row(i)[j] = W(T(scale) * wide.row(i)[j]);
  }
}

// y = x W^T + u B^T, and u.
template <class W>
void linear_forward(const linear<const W>& by, double scale, matrix<const W> x,
                    matrix<arithmetic<W>> y, matrix<W> u, matrix<arithmetic<W>> wide,
                    onto before = onto::nothing) {
  multiply<W>(plain<W>(x), transposed<W>(by.weight), y, before);
  low_rank_forward<W>(by.down, scale, x, u, wide);
  for (std::size_t p = 0; p < by.parts.size(); ++p) {
    const auto& part = by.parts[p];
    const std::int64_t rank = part.up.columns;
    multiply<W>(plain<W>(columns_of<const W>(u, static_cast<std::int64_t>(p) * rank, rank)),
                transposed<W>(part.up), columns_of(y, part.first_output, part.up.rows),
                onto::what_is_there);
  }
}

// d_x = d_y W + d_u A, where d_u = scale d_y B is written to `d_u`.
template <class W>
void linear_backward(const linear<const W>& by, double scale, matrix<const W> d_y,
                     matrix<arithmetic<W>> d_x, matrix<W> d_u, matrix<arithmetic<W>> wide) {
  using T = arithmetic<W>;
  multiply<W>(plain<W>(d_y), plain<W>(by.weight), d_x);
  if (by.parts.empty()) return;
  const std::int64_t rank = by.parts[0].up.columns;
  for (std::size_t p = 0; p < by.parts.size(); ++p) {
    const auto& part = by.parts[p];
    multiply<W>(plain<W>(columns_of(d_y, part.first_output, part.up.rows)), plain<W>(part.up),
                columns_of(wide, static_cast<std::int64_t>(p) * rank, rank));
  }
  for (std::int64_t i = 0; i < wide.rows; ++i) {
    for (std::int64_t j = 0; j < wide.columns; ++j) d_u.row(i)[j] = W(T(scale) * wide.row(i)[j]);
  }
  multiply<W>(plain<W>(d_u), plain<W>(by.down), d_x, onto::what_is_there);
}

// What adds to the gradient of a layer's matrices: d_W += d_y^T x, d_A += d_u^T x, d_B += d_y^T u.
// One product for at most `most_rows` rows of a matrix, so that threads share them: calls
// `add(job)` for each, which may be done in any order.
template <class W, class Add>
void linear_gradients(const linear<arithmetic<W>>& d, matrix<const W> x, matrix<const W> u,
                      matrix<const W> d_y, matrix<const W> d_u, std::int64_t most_rows,
                      const Add& add) {
  using T = arithmetic<W>;
  const auto products = [&](matrix<const W> left, matrix<const W> right, matrix<T> to) {
    if (to.data == nullptr) return;
    for (std::int64_t first = 0; first < to.rows; first += most_rows) {
      const std::int64_t count = std::min(most_rows, to.rows - first);
      add([left = columns_of(left, first, count), right, part = rows_of(to, first, count)] {
        multiply<W>(transposed<W>(left), plain<W>(right), part, onto::what_is_there);
      });
    }
  };
  products(d_y, x, d.weight);
  if (d.parts.empty()) return;
  products(d_u, x, d.down);
  const std::int64_t rank = d.parts[0].up.columns;
  for (std::size_t p = 0; p < d.parts.size(); ++p) {
    const auto& part = d.parts[p];
    products(columns_of(d_y, part.first_output, part.up.rows),
             columns_of(u, static_cast<std::int64_t>(p) * rank, rank), part.up);
  }
}

}  // namespace align
