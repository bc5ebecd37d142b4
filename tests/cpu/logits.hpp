// Matrices of logits for tests: a pitch wider than the vocabulary, poison in between, and rows of
// every kind that has broken a softmax somewhere.

#pragma once

#include <prospect/core/matrix_view.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "cpu/rows.hpp"
#include "oracle/softmax.hpp"
#include "random.hpp"

namespace testing {

template <class S>
class logits_matrix {
 public:
  logits_matrix(std::int64_t rows, std::int64_t columns, std::int64_t padding = 3,
                std::int64_t misaligned_by = 1)
      : rows_{rows},
        columns_{columns},
        pitch_{columns + padding},
        first_{misaligned_by},
        block_(static_cast<std::size_t>(misaligned_by + rows * pitch_ + 4), poison<S>()) {}

  prospect::matrix_view<S> view() { return {block_.data() + first_, rows_, columns_, pitch_}; }
  S& at(std::int64_t row, std::int64_t column) {
    return block_[static_cast<std::size_t>(first_ + row * pitch_ + column)];
  }
  /// The block that the matrix lies in, and where its first element is: for a copy elsewhere.
  std::vector<S>& block() { return block_; }
  std::int64_t first() const { return first_; }
  std::int64_t rows() const { return rows_; }
  std::int64_t columns() const { return columns_; }

  template <class Number>
  void fill_row(std::int64_t row, const Number& number) {
    for (std::int64_t j = 0; j < columns_; ++j) at(row, j) = stored<S>(number(j));
  }
  std::vector<oracle::real> row(std::int64_t row) {
    std::vector<oracle::real> x;
    for (std::int64_t j = 0; j < columns_; ++j) x.push_back(prospect::load(at(row, j)));
    return x;
  }
  std::vector<S> elements() {
    std::vector<S> all;
    for (std::int64_t i = 0; i < rows_; ++i) {
      for (std::int64_t j = 0; j < columns_; ++j) all.push_back(at(i, j));
    }
    return all;
  }
  /// Nothing outside the columns was written.
  bool padding_untouched() {
    std::size_t poisoned = 0, outside = block_.size() - static_cast<std::size_t>(rows_ * columns_);
    for (const S& x : block_) poisoned += same_bits(x, poison<S>()) ? 1 : 0;
    return poisoned == outside;
  }

 private:
  std::int64_t rows_, columns_, pitch_, first_;
  std::vector<S> block_;
};

/// The kinds of rows, by what they once broke.
enum class row_kind {
  ordinary,
  near_uniform,
  low,           // everything at -200: softmaxes that start their maximum at 0
  high,          // everything at +500: exponentials without a maximum
  very_low,      // everything at -1e4
  wide,          // from -80 to 80: terms that underflow
  dead_start,    // the first part of the row is impossible: tiles of nothing but -inf
  rising,        // ever higher: a maximum that is found block by block
  falling,       // ever lower: probabilities through the subnormal numbers to 0
  only_possible  // nothing but the target
};

constexpr row_kind all_row_kinds[] = {
    row_kind::ordinary, row_kind::near_uniform, row_kind::low,        row_kind::high,
    row_kind::very_low, row_kind::wide,         row_kind::dead_start, row_kind::rising,
    row_kind::falling,  row_kind::only_possible};

/// Fills a row; the target's logit is always possible.
template <class S>
void fill(logits_matrix<S>& logits, std::int64_t row, row_kind kind, std::int64_t target,
          random_source& random) {
  const double minus_infinity = -std::numeric_limits<double>::infinity();
  const auto share = [&](std::int64_t j) {
    return static_cast<double>(j) / static_cast<double>(logits.columns());
  };
  logits.fill_row(row, [&](std::int64_t j) -> double {
    switch (kind) {
      case row_kind::ordinary:
        return random.normal(3);
      case row_kind::near_uniform:
        return random.normal(1e-3);
      case row_kind::low:
        return random.normal(2) - 200;
      case row_kind::high:
        return random.normal(2) + 500;
      case row_kind::very_low:
        return random.normal(2) - 1e4;
      case row_kind::wide:
        return random.uniform(-80, 80);
      case row_kind::dead_start:
        return j < logits.columns() * 2 / 3 && j != target ? minus_infinity : random.normal(2);
      case row_kind::rising:
        return 1000 * share(j) + random.normal(1);
      case row_kind::falling:
        return -120 * share(j) + random.normal(1);
      case row_kind::only_possible:
        return j == target ? random.normal(3) : minus_infinity;
    }
    return 0;
  });
}

}  // namespace testing
