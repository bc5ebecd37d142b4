// Causal attention of one sequence, for the heads that share a head of keys and values. Scores
// are made for some queries at a time, and made again in the backward pass: nothing of length by
// length is kept.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "model/shape.hpp"
#include "tensor.hpp"

namespace align {

// Where queries, keys and values lie in a row.
struct attention_layout {
  int heads, key_value_heads, head_width;

  explicit attention_layout(const model_shape& s)
      : heads(s.heads), key_value_heads(s.key_value_heads), head_width(s.head_width) {}

  std::int64_t query(int head) const { return std::int64_t{head} * head_width; }
  std::int64_t key(int group) const { return std::int64_t{heads + group} * head_width; }
  std::int64_t value(int group) const {
    return std::int64_t{heads + key_value_heads + group} * head_width;
  }
  int shared() const { return heads / key_value_heads; }
};

namespace detail {

template <class T>
using dense = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

template <class T>
auto block_of(matrix<T> m, std::int64_t row, std::int64_t column, std::int64_t rows,
              std::int64_t columns) {
  using plain = dense<std::remove_const_t<T>>;
  using kind = std::conditional_t<std::is_const_v<T>, const plain, plain>;
  return Eigen::Map<kind, 0, Eigen::OuterStride<>>(m.row(row) + column, rows, columns,
                                                   Eigen::OuterStride<>(m.pitch));
}

constexpr std::int64_t queries_at_once = 64;

}  // namespace detail

// Rows [first, first + length) of `qkv`, turned, are the sequence. Writes its columns of `mixed`,
// and the log of each query's normaliser to `lse` ([tokens, heads]).
template <class W>
void attention_forward(const attention_layout& at, std::int64_t first, std::int64_t length,
                       int group, matrix<const arithmetic<W>> qkv, matrix<arithmetic<W>> lse,
                       matrix<W> mixed) {
  using T = arithmetic<W>;
  using detail::block_of;
  const int width = at.head_width;
  const T scale = T(1) / std::sqrt(T(width));
  detail::dense<T> p, out;
  for (std::int64_t from = 0; from < length; from += detail::queries_at_once) {
    const std::int64_t count = std::min(detail::queries_at_once, length - from);
    const std::int64_t seen = from + count;
    const auto k = block_of(qkv, first, at.key(group), seen, width);
    const auto v = block_of(qkv, first, at.value(group), seen, width);
    for (int head = group * at.shared(); head < (group + 1) * at.shared(); ++head) {
      const auto q = block_of(qkv, first + from, at.query(head), count, width);
      p.noalias() = q * k.transpose();
      for (std::int64_t i = 0; i < count; ++i) {
        auto row = p.row(i).head(from + i + 1).array();
        const T highest = row.maxCoeff();
        row = ((row - highest) * scale).exp();
        const T sum = row.sum();
        row /= sum;
        p.row(i).tail(count - i - 1).setZero();
        lse.row(first + from + i)[head] = highest * scale + std::log(sum);
      }
      out.noalias() = p * v;
      for (std::int64_t i = 0; i < count; ++i) {
        W* const to = mixed.row(first + from + i) + at.query(head);
        for (int j = 0; j < width; ++j) to[j] = W(out(i, j));
      }
    }
  }
}

// Writes the sequence's rows of `d_qkv` for this group, before the rotation is undone.
template <class T>
void attention_backward(const attention_layout& at, std::int64_t first, std::int64_t length,
                        int group, matrix<const T> qkv, matrix<const T> lse,
                        matrix<const T> d_mixed, matrix<T> d_qkv) {
  using detail::block_of;
  const int width = at.head_width;
  const T scale = T(1) / std::sqrt(T(width));
  block_of(d_qkv, first, at.key(group), length, width).setZero();
  block_of(d_qkv, first, at.value(group), length, width).setZero();
  detail::dense<T> p, d_scores;
  for (std::int64_t from = 0; from < length; from += detail::queries_at_once) {
    const std::int64_t count = std::min(detail::queries_at_once, length - from);
    const std::int64_t seen = from + count;
    const auto k = block_of(qkv, first, at.key(group), seen, width);
    const auto v = block_of(qkv, first, at.value(group), seen, width);
    auto d_k = block_of(d_qkv, first, at.key(group), seen, width);
    auto d_v = block_of(d_qkv, first, at.value(group), seen, width);
    for (int head = group * at.shared(); head < (group + 1) * at.shared(); ++head) {
      const auto q = block_of(qkv, first + from, at.query(head), count, width);
      const auto d_out = block_of(d_mixed, first + from, at.query(head), count, width);
      p.noalias() = q * k.transpose();
      d_scores.noalias() = d_out * v.transpose();
      for (std::int64_t i = 0; i < count; ++i) {
        const std::int64_t own = from + i + 1;
        auto row = p.row(i).head(own).array();
        row = (row * scale - lse.row(first + from + i)[head]).exp();
        auto d_row = d_scores.row(i).head(own).array();
        const T along = (d_row * row).sum();
        d_row = scale * row * (d_row - along);
        p.row(i).tail(count - i - 1).setZero();
        d_scores.row(i).tail(count - i - 1).setZero();
      }
      block_of(d_qkv, first + from, at.query(head), count, width).noalias() = d_scores * k;
      d_k.noalias() += d_scores.transpose() * q;
      d_v.noalias() += p.transpose() * d_out;
    }
  }
}

}  // namespace align
