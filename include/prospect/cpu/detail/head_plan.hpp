// How the head path divides its work: tiles of the vocabulary, chunks of tokens, and how much of
// both fits into a workspace. Arithmetic on sizes alone.
#pragma once

#include <prospect/core/dtype.hpp>
#include <prospect/core/extent.hpp>
#include <prospect/core/isa.hpp>
#include <prospect/cpu/detail/head_products.hpp>
#include <prospect/cpu/head_workspace.hpp>
#include <prospect/vocabulary.hpp>

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cpu::detail {
inline namespace PROSPECT_CPU_ISA {

using prospect::detail::most_bytes;
using prospect::detail::product;

constexpr std::int64_t round_up(std::int64_t n, std::int64_t to) { return (n + to - 1) / to * to; }

/// Columns of one GEMM that makes logits. Fixed, because the sums of a row are combined tile by
/// tile: whatever the workspace, the log-probs are the same bits.
inline constexpr std::int64_t tile_columns = 960;
/// Rows are padded with zeros to a multiple of this, so that every row takes the GEMM's main path
/// and its result does not depend on its neighbours. (Eigen's other path is for dimensions that add
/// up to less than 20.)
inline constexpr std::int64_t row_multiple = 24;
/// The most tiles that are worked on before the threads meet.
inline constexpr std::int64_t wave_tiles = 16;
/// Of so many threads (0: who knows), each has work for two tiles: the fewer columns are held at
/// once, the more rows are, and the fewer times a product packs its tile. Only for passes that add
/// nothing up over chunks: in others, where a chunk ends shows in the last digits.
constexpr std::int64_t tiles_for(std::int64_t threads) {
  std::int64_t tiles = wave_tiles;
  while (threads > 0 && tiles / 4 >= threads && tiles > 2) tiles /= 2;
  return tiles;
}
/// The part of the hidden gradient that one thread works on.
inline constexpr std::int64_t block_rows = 480;  // a multiple of row_multiple and 32
inline constexpr std::int64_t block_columns = 512;
/// The rank of an adapter is padded with zeros to a multiple of this: a product with a matrix of
/// one column is another algorithm in Eigen, whose sums depend on where a row lies.
inline constexpr std::int64_t rank_multiple = 8;

/// What a chunk holds at once, beside its hidden states.
enum class head_holds {
  sums,       ///< of logits, and none of these: log-probs alone
  tiles,      ///< a wave of tiles, and gradients of the hidden states
  whole_rows  ///< all tiles, and the same
};

/// In how large pieces a pass goes through its tokens and the vocabulary.
struct head_plan {
  std::int64_t rows;    ///< in a chunk, a multiple of row_multiple
  std::int64_t window;  ///< columns of logits held at once
  std::int64_t wave;    ///< tiles the threads work on before they meet
  head_holds holds = head_holds::tiles;
};

/// What the terms of a row in a tile are relative to, and what that makes of those before them.
template <std::floating_point R>
struct carried_step {
  double reference;
  R shrinks_to;
};

/// A chunk's part of the workspace.
template <class Products>
struct head_buffers {
  using L = typename Products::L;
  using G = typename Products::G;
  using R = typename Products::R;

  L* hidden = nullptr;                     ///< [rows, width]
  R* wide_hidden = nullptr;                ///< the same, where it is needed beside that
  R* d_hidden = nullptr;                   ///< [rows, width]
  R* logits = nullptr;                     ///< [window, rows], tile by tile
  R* blocks = nullptr;                     ///< or some of their rows at a time
  R* weight = nullptr;                     ///< [wave, width], where storage has to be widened
  R* lora_a = nullptr;                     ///< [rank, width], an adapter's, its rank padded
  R* lora_b = nullptr;                     ///< [wave, rank]
  G* narrow_lora_b = nullptr;              ///< the same, where gradients do not meet that
  R* lora_hidden = nullptr;                ///< [rows, rank]
  G* narrow_lora_hidden = nullptr;         ///< the same, where gradients do not meet that
  R* lora_sums = nullptr;                  ///< [rows, rank]
  vocabulary_partial* partials = nullptr;  ///< [wave, rows]
  carried_step<R>* steps = nullptr;        ///< [wave, rows]
  std::int64_t bytes = 0;
};

/// The sizes of a pass. No number that comes out is more than a few times `most_bytes`, whatever
/// went in, and no workspace has room for as much.
template <class Products>
class head_sizes {
 public:
  using L = typename Products::L;
  using G = typename Products::G;
  using R = typename Products::R;

  /// `rows_at_once`: of logits, if they are made by blocks.
  constexpr head_sizes(std::int64_t width, std::int64_t vocabulary, std::int64_t rank,
                       std::int64_t rows_at_once, std::int64_t workspace) noexcept
      : width_{width},
        vocabulary_{vocabulary},
        rank_{round_up(rank, rank_multiple)},
        rows_at_once_{rows_at_once},
        room_{(std::clamp)(workspace, std::int64_t{0}, most_bytes)} {}

  /// Between rows of logits: not a multiple of a page, which would put all rows in the same cache
  /// set.
  static constexpr std::int64_t pitch(std::int64_t columns) { return round_up(columns, 16) + 16; }
  static constexpr std::int64_t tiles(std::int64_t columns) {
    return (columns + tile_columns - 1) / tile_columns;
  }
  constexpr std::int64_t room() const { return room_; }

  /// Hands out `memory`; the same code counts how much that is where there is none yet.
  head_buffers<Products> carve(const head_plan& p, std::byte* memory,
                               bool keeps_rows = false) const {
    head_buffers<Products> b;
    const auto take = [&]<class T>(T*& pointer, std::int64_t rows, std::int64_t columns) {
      if (memory != nullptr) pointer = reinterpret_cast<T*>(memory + b.bytes);
      b.bytes = round_up(b.bytes + product(product(rows, columns), std::int64_t{sizeof(T)}),
                         head_workspace<R>::line);
    };
    take(b.hidden, p.rows, width_);
    if (!std::same_as<L, R> && (std::same_as<G, R> || rank_ > 0)) {
      take(b.wide_hidden, p.rows, width_);
    }
    const bool sums_alone = p.holds == head_holds::sums;
    if (!sums_alone) take(b.d_hidden, p.rows, width_);
    const bool apart = Products::arranges && (sums_alone || keeps_rows);
    if (apart) take(b.blocks, rows_of_block(p.rows), pitch_of_tiles(p.window));
    if (!apart && !keeps_rows) take(b.logits, p.rows, pitch_of_tiles(p.window));
    if (Products::widens_for_logits || Products::widens_for_gradients)
      take(b.weight, p.wave * tile_columns, width_);
    if (rank_ > 0) {
      take(b.lora_a, rank_, width_);
      take(b.lora_b, p.wave * tile_columns, rank_);
      take(b.lora_hidden, p.rows, rank_);
      if (!std::same_as<G, R>) {
        take(b.narrow_lora_b, p.wave * tile_columns, rank_);
        take(b.narrow_lora_hidden, p.rows, rank_);
      }
      take(b.lora_sums, p.rows, rank_);
    }
    take(b.partials, p.wave, p.rows);
    if (!sums_alone) take(b.steps, p.wave, p.rows);
    return b;
  }
  /// Of so many rows, those of a tile that are made at a time.
  constexpr std::int64_t rows_of_block(std::int64_t rows) const {
    return (std::min)(rows, rows_at_once_);
  }
  /// Between rows of a tile. GEMMs that arrange like them without gaps, others give other bits
  /// then: there are always some.
  static constexpr std::int64_t pitch_of_tile(std::int64_t columns) {
    return Products::arranges ? columns : pitch(columns);
  }
  /// The same of all tiles with so many columns.
  static constexpr std::int64_t pitch_of_tiles(std::int64_t columns) {
    const std::int64_t rest = columns % tile_columns;
    return columns / tile_columns * pitch_of_tile(tile_columns) +
           (rest == 0 ? 0 : pitch_of_tile(rest));
  }
  /// Bytes of everything a chunk needs.
  std::int64_t bytes(const head_plan& p) const { return carve(p, nullptr).bytes; }

  /// Chunks of `tokens` tokens that fit into what is left beside `kept_bytes`; without rows where
  /// none does. Of tiles, as many as keep the threads busy, but rather more rows than more tiles.
  head_plan plan(std::int64_t tokens, head_holds holds, std::int64_t kept_bytes,
                 std::int64_t threads = 0) const {
    const bool whole_rows = holds == head_holds::whole_rows;
    const std::int64_t all = round_up((std::max)(tokens, std::int64_t{1}), row_multiple);
    const std::int64_t most = whole_rows ? all : (std::min)(max_rows, all);
    const auto with_window = [&](std::int64_t window) {
      head_plan p{0, window, wave_of(window), holds};
      p.rows = rows_that_fit(p, most, room_ - kept_bytes);
      return p;
    };
    if (whole_rows) return with_window(vocabulary_);
    for (std::int64_t tiles = tiles_for(threads); tiles > 1; tiles /= 2) {
      const head_plan p = with_window((std::min)(tiles * tile_columns, vocabulary_));
      // Arranging a tile takes as long as some fifty rows of its product.
      const bool may_halve = Products::arranges && threads > 0 && tiles >= 2 * threads;
      if (p.rows >= (std::min)(most, may_halve ? 2 * good_rows : good_rows)) return p;
    }
    return with_window((std::min)(tile_columns, vocabulary_));
  }

  /// Bytes of one row of logits that stays.
  std::int64_t row_bytes() const { return product(pitch(vocabulary_), std::int64_t{sizeof(R)}); }
  std::int64_t kept_bytes(std::int64_t tokens) const {
    return round_up(product(round_up(tokens, row_multiple), row_bytes()), head_workspace<R>::line);
  }
  /// How many tokens' gradients can be kept beside what a chunk needs.
  std::int64_t tokens_to_keep(std::int64_t tokens) const {
    const std::int64_t smallest = bytes({row_multiple, (std::min)(tile_columns, vocabulary_), 1});
    const head_plan comfortable{(std::min)(good_rows, round_up(tokens, row_multiple)),
                                (std::min)(4 * tile_columns, vocabulary_), 4};
    const std::int64_t chunk = (std::max)(smallest, (std::min)(bytes(comfortable), room_ / 4));
    const std::int64_t rows = (room_ - chunk) / row_bytes();
    return (std::clamp)(rows / row_multiple * row_multiple, std::int64_t{0}, tokens);
  }
  /// The most that chunks of so many tokens may ever take, beside what is kept.
  std::int64_t most_beside(std::int64_t kept_bytes, std::int64_t tokens) const {
    const std::int64_t window = (std::min)(wave_tiles * tile_columns, vocabulary_);
    const head_plan largest{(std::min)(max_rows, round_up(tokens, row_multiple)), window,
                            wave_of(window)};
    return (std::min)(room_, kept_bytes + bytes(largest));
  }

 private:
  static constexpr std::int64_t max_rows = 4096;
  static constexpr std::int64_t good_rows = 512;

  static constexpr std::int64_t wave_of(std::int64_t window) {
    return (std::min)(wave_tiles, tiles(window));
  }

  /// The most rows up to `most`, by halving: there may be any number of tokens.
  std::int64_t rows_that_fit(head_plan p, std::int64_t most, std::int64_t room) const {
    const auto fits = [&](std::int64_t multiples) {
      p.rows = multiples * row_multiple;
      return bytes(p) <= room;
    };
    std::int64_t fitting = 0;
    std::int64_t too_many = most / row_multiple + 1;
    while (too_many - fitting > 1) {
      const std::int64_t middle = fitting + (too_many - fitting) / 2;
      (fits(middle) ? fitting : too_many) = middle;
    }
    return fitting * row_multiple;
  }

  std::int64_t width_, vocabulary_, rank_, rows_at_once_, room_;
};

/// As many chunks as it takes, none of them much shorter than the others: each goes through the
/// whole head.
constexpr std::int64_t even_chunk(std::int64_t tokens, std::int64_t most) {
  const std::int64_t chunks = (std::max)((tokens + most - 1) / most, std::int64_t{1});
  return (std::min)(most, round_up((tokens + chunks - 1) / chunks, row_multiple));
}

/// f(chunk, first): tokens [first, first + the chunk's size) of all.
template <class F>
void for_each_chunk(std::span<const std::int64_t> tokens, std::int64_t most_rows, const F& f) {
  const auto step =
      static_cast<std::size_t>(even_chunk(static_cast<std::int64_t>(tokens.size()), most_rows));
  for (std::size_t first = 0; first < tokens.size(); first += step) {
    f(tokens.subspan(first, (std::min)(step, tokens.size() - first)),
      static_cast<std::int64_t>(first));
  }
}

}  // namespace PROSPECT_CPU_ISA
}  // namespace prospect::inline v2::cpu::detail
PROSPECT_STRICT_END
