// Matrices with a row for each token of the vocabulary, tile by tile: as a GEMM takes them.
#pragma once

#include <prospect/core/dtype.hpp>
#include <prospect/core/matrix_view.hpp>
#include <prospect/cpu/detail/head_plan.hpp>

#include <algorithm>
#include <cstdint>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cpu::detail {
inline namespace PROSPECT_CPU_ISA {

/// How many rows of such a matrix, and columns of logits, are in a tile.
constexpr std::int64_t size_of_tile(std::int64_t vocabulary, std::int64_t tile) {
  return (std::min)(tile_columns, vocabulary - tile * tile_columns);
}

/// A tile's rows, where they lie.
template <class T>
matrix_view<T> rows_of_tile(const matrix_view<T>& m, std::int64_t tile) {
  return {m.row(tile * tile_columns), size_of_tile(m.rows, tile), m.columns,
          m.rows > 1 ? m.pitch : m.columns};
}

/// `to` has as many rows; its further columns become 0.
template <storage S>
void widen_row(const matrix_view<const S>& from, std::int64_t i,
               const matrix_view<compute_t<S>>& to) {
  const S* const x = from.row(i);
  compute_t<S>* const y = to.row(i);
  for (std::int64_t j = 0; j < from.columns; ++j) y[j] = load(x[j]);
  std::fill(y + from.columns, y + to.columns, compute_t<S>(0));
}

/// The weight in the type of arithmetic: where it is or, if that is another type, widened into as
/// many places as a wave has tiles.
template <storage S>
class head_weight {
 public:
  using R = compute_t<S>;

  explicit head_weight(const matrix_view<const S>& weight) : weight_{weight} {}
  void begin(R* places) { places_ = places; }

  /// A tile that has been widened into the k-th place, if it has to be.
  matrix_view<const R> tile(std::int64_t tile, std::int64_t k) const {
    if constexpr (head_sizes<S>::widens) {
      return place(tile, k);
    } else {
      static_cast<void>(k);
      return rows_of_tile(weight_, tile);
    }
  }
  /// The same, widened now.
  matrix_view<const R> widen(std::int64_t number, std::int64_t k) const {
    if constexpr (head_sizes<S>::widens) {
      const matrix_view<const S> from = rows_of_tile(weight_, number);
      for (std::int64_t v = 0; v < from.rows; ++v) widen_row(from, v, place(number, k));
    }
    return tile(number, k);
  }

 private:
  matrix_view<R> place(std::int64_t tile, std::int64_t k) const {
    return {places_ + k * tile_columns * weight_.columns, size_of_tile(weight_.rows, tile),
            weight_.columns};
  }

  matrix_view<const S> weight_;
  R* places_ = nullptr;
};

}  // namespace PROSPECT_CPU_ISA
}  // namespace prospect::inline v2::cpu::detail
PROSPECT_STRICT_END
