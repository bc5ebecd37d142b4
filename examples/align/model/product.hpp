// The matrix products of the trainer's layers: the library's, on operands as they are stored. The
// product of 16-bit operands is oneDNN's where the processor has one; elsewhere they are widened.
#pragma once

#include "gemm.hpp"
#include "tensor.hpp"

namespace align {

template <class W>
using operand = prospect::cpu::gemm_operand<W>;

template <class W>
operand<W> plain(matrix<const W> m) {
  return {.matrix = m};
}

template <class W>
operand<W> transposed(matrix<const W> m) {
  return {.matrix = m, .transposed = true};
}

// Rounded to W where W is narrower.
template <class W>
void store_rows(matrix<const arithmetic<W>> from, matrix<W> to) {
  for (std::int64_t i = 0; i < from.rows; ++i) {
    const arithmetic<W>* const x = from.row(i);
    W* const y = to.row(i);
    for (std::int64_t j = 0; j < from.columns; ++j) y[j] = W(x[j]);
  }
}

// `m` as an operand: itself, or rounded into `memory`, which has its shape.
template <class W>
matrix<const W> as_operand(matrix<const arithmetic<W>> m, matrix<W> memory) {
  if constexpr (std::same_as<W, arithmetic<W>>) {
    return m;
  } else {
    store_rows<W>(m, memory);
    return memory;
  }
}

namespace detail {

template <class W>
aligned_vector<float> widened(const matrix<const W>& m) {
  aligned_vector<float> wide(static_cast<std::size_t>(m.rows * m.columns));
  for (std::int64_t i = 0; i < m.rows; ++i) {
    float* const y = wide.data() + i * m.columns;
    for (std::int64_t j = 0; j < m.columns; ++j) y[j] = static_cast<float>(m.row(i)[j]);
  }
  return wide;
}

}  // namespace detail

enum class onto { nothing, what_is_there };

namespace detail {

// A template of the functor too, so that one without `narrow` is not asked for it.
template <class W, class Gemm>
void multiply_by(const Gemm& product, operand<W> a, operand<W> b, matrix<arithmetic<W>> c,
                 bool accumulate) {
  if constexpr (std::same_as<W, arithmetic<W>>) {
    product(a, b, c, accumulate);
  } else {
    if constexpr (prospect::cpu::narrow_gemm<Gemm, W>) {
      if (product.template narrow<W>() == prospect::cpu::narrow_products::all) {
        return product(a, b, c, accumulate);
      }
    }
    const aligned_vector<float> x = widened(a.matrix), y = widened(b.matrix);
    const auto wide = [](const operand<W>& o, const aligned_vector<float>& data) {
      return operand<float>{{data.data(), o.matrix.rows, o.matrix.columns}, o.transposed};
    };
    product(wide(a, x), wide(b, y), c, accumulate);
  }
}

}  // namespace detail

// c = a b, or c += a b, on this thread.
template <class W>
void multiply(operand<W> a, operand<W> b, matrix<arithmetic<W>> c, onto before = onto::nothing) {
  detail::multiply_by<W>(fast_gemm{}, a, b, c, before == onto::what_is_there);
}

}  // namespace align
