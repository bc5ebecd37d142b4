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
template <storage S, storage T>
void pad_row(const matrix_view<const S>& from, std::int64_t i, const matrix_view<T>& to) {
  T* const y = to.row(i);
  copy_row(from.row(i), from.columns, y);
  std::fill(y + from.columns, y + to.columns, T{});
}

/// The weight as products take it: where it is or, for those in another type, widened into as many
/// places as a wave has tiles.
template <class Products>
class head_weight {
 public:
  using S = typename Products::S;
  using L = typename Products::L;
  using G = typename Products::G;
  using R = typename Products::R;

  explicit head_weight(const matrix_view<const S>& weight) : weight_{weight} {}
  void begin(R* places) { places_ = places; }

  /// A tile for logits, widened into the k-th place now if it has to be.
  matrix_view<const L> for_logits(std::int64_t number, std::int64_t k) const {
    if constexpr (Products::widens_for_logits) widen(number, k);
    return as<L>(number, k);
  }
  /// Has a tile in the k-th place for what gradients are multiplied by. `made_logits`: it was taken
  /// for that, in this wave.
  void prepare(std::int64_t number, std::int64_t k, bool made_logits) const {
    if (!Products::widens_for_gradients) return;
    if (!Products::widens_for_logits || !made_logits) widen(number, k);
  }
  /// A tile that has been prepared.
  matrix_view<const G> tile(std::int64_t number, std::int64_t k) const { return as<G>(number, k); }

 private:
  template <storage T>
  matrix_view<const T> as(std::int64_t number, std::int64_t k) const {
    if constexpr (std::same_as<T, S>) {
      static_cast<void>(k);
      return rows_of_tile(weight_, number);
    } else {
      return place(number, k);
    }
  }
  void widen(std::int64_t number, std::int64_t k) const {
    const matrix_view<const S> from = rows_of_tile(weight_, number);
    for (std::int64_t v = 0; v < from.rows; ++v) pad_row(from, v, place(number, k));
  }
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
