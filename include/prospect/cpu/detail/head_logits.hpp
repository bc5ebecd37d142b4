// The logits of a chunk of tokens, tile by tile: where they lie, and how they are made.
#pragma once

#include <prospect/cpu/detail/head_adapter.hpp>
#include <prospect/cpu/detail/head_batch.hpp>
#include <prospect/cpu/detail/head_plan.hpp>
#include <prospect/cpu/detail/head_products.hpp>
#include <prospect/cpu/detail/head_tiles.hpp>
#include <prospect/cpu/gemm.hpp>

#include <algorithm>
#include <cstdint>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cpu::detail {
inline namespace PROSPECT_CPU_ISA {

/// Of the chunk that was begun. Its window holds a wave of tiles or all of them, unless whole rows
/// are kept elsewhere, or nothing is.
template <class Products, class Gemm, executor E>
class chunk_logits {
 public:
  using L = typename Products::L;
  using R = typename Products::R;

  chunk_logits(const head_batch<Products>& batch, const head_weight<Products>& weight,
               const head_adapter<Products, Gemm, E>& adapter, const Gemm& multiply)
      : batch_{batch}, weight_{weight}, adapter_{adapter}, multiply_{multiply} {}
  chunk_logits(const chunk_logits&) = delete;
  chunk_logits& operator=(const chunk_logits&) = delete;

  /// So many tokens, in so many rows. `kept_rows`: where these are kept, if they are.
  void begin(const head_plan& p, const head_buffers<Products>& buffers, std::int64_t tokens,
             std::int64_t rows, R* kept_rows) {
    plan_ = p;
    window_ = buffers.logits;
    blocks_ = buffers.blocks;
    kept_rows_ = kept_rows;
    hidden_ = {buffers.hidden, rows, batch_.width()};
    tokens_ = tokens;
  }

  /// A row that is kept.
  R* kept_row(std::int64_t i) const {
    return kept_rows_ + i * batch_.sizes().pitch(batch_.vocabulary());
  }
  std::int64_t columns(std::int64_t tile) const { return size_of_tile(batch_.vocabulary(), tile); }
  /// A tile, if anything is held of it.
  matrix_view<R> of_tile(std::int64_t tile) const {
    if (kept_rows_ == nullptr) return place(window_, tile, hidden_.rows);
    return {kept_rows_ + tile * tile_columns, hidden_.rows, columns(tile),
            batch_.sizes().pitch(batch_.vocabulary())};
  }

  /// Makes a tile, the k-th of its wave, calling `made(first, logits)` for the rows from `first` on
  /// while they are near: for all at once, or for those of a block.
  template <class F>
  void make(std::int64_t tile, std::int64_t k, const F& made) const {
    const gemm_operand<L> weight{.matrix = weight_.for_logits(tile, k), .transposed = true};
    adapter_.take_tile(tile, k);
    multiply_by_blocks<Products::arranges>(
        multiply_, hidden_, weight, false,
        [&](std::int64_t first, std::int64_t rows) { return block(tile, first, rows); },
        [&](std::int64_t first, const matrix_view<R>& logits) {
          adapter_.add_logits(tile, k, first, logits);
          add_bias(tile, first, logits);
          made(first, logits);
          if (blocks_ != nullptr && kept_rows_ != nullptr) keep(tile, first, logits);
        });
  }

 private:
  /// Where so many rows of a tile are made: in their window or, where that has gaps between rows or
  /// there is none, by themselves.
  matrix_view<R> block(std::int64_t tile, std::int64_t first, std::int64_t rows) const {
    const bool apart = blocks_ != nullptr;
    const matrix_view<R> all =
        apart ? place(blocks_, tile, batch_.sizes().rows_of_block(hidden_.rows)) : of_tile(tile);
    return {all.row(apart ? 0 : first), rows, all.columns, all.pitch};
  }
  /// A tile's place in memory for so many rows of a window.
  matrix_view<R> place(R* memory, std::int64_t tile, std::int64_t rows) const {
    const head_sizes<Products>& sizes = batch_.sizes();
    const std::int64_t before = tile % sizes.tiles(plan_.window) * tile_columns;
    return {memory + rows * sizes.pitch_of_tiles(before), rows, columns(tile),
            sizes.pitch_of_tile(columns(tile))};
  }

  void add_bias(std::int64_t tile, std::int64_t first, const matrix_view<R>& logits) const {
    const auto& bias = batch_.head().bias;
    if (bias.empty()) return;
    for (std::int64_t i = 0; i < (std::min)(logits.rows, tokens_ - first); ++i) {
      for (std::int64_t j = 0; j < logits.columns; ++j) {
        logits.row(i)[j] += load(bias[tile * tile_columns + j]);
      }
    }
  }
  void keep(std::int64_t tile, std::int64_t first, const matrix_view<R>& logits) const {
    const matrix_view<R> kept = of_tile(tile);
    for (std::int64_t i = 0; i < logits.rows; ++i) {
      copy_row(logits.row(i), logits.columns, kept.row(first + i));
    }
  }

  const head_batch<Products>& batch_;
  const head_weight<Products>& weight_;
  const head_adapter<Products, Gemm, E>& adapter_;
  const Gemm& multiply_;

  head_plan plan_{};
  R* window_ = nullptr;
  R* blocks_ = nullptr;
  R* kept_rows_ = nullptr;
  matrix_view<const L> hidden_;
  std::int64_t tokens_ = 0;
};

}  // namespace PROSPECT_CPU_ISA
}  // namespace prospect::inline v2::cpu::detail
PROSPECT_STRICT_END
