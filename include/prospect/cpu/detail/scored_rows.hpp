// The scored rows of a sequence in blocks, whatever stands between them: so that a token is worked
// on beside the same others, and added up with them, however its batch is laid out.
#pragma once

#include <prospect/core/index_row.hpp>
#include <prospect/core/mask_row.hpp>
#include <prospect/cpu/detail/rows.hpp>
#include <prospect/layout.hpp>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cpu::detail {
inline namespace PROSPECT_CPU_ISA {

/// Rows `at`; or where they do not lie side by side those of all that lie in these pieces.
struct scored_block {
  range at;
  pieces_at pieces = nullptr;

  std::int64_t row(std::int64_t i) const {
    if (pieces == nullptr) return at.first + i;
    std::int64_t found = 0;
    for_each_piece(pieces, {at.first + i, 1},
                   [&](std::int64_t, range piece) { found = piece.first; });
    return found;
  }
};

/// The scored rows of a sequence: how many there are, and from where on if they lie side by side.
struct scored_run {
  std::int64_t first = 0, count = 0;
  bool side_by_side = true;
};

/// Rows that wait for their block to become full, in the pieces in which they lie.
struct waiting_rows {
  range piece[2 * block_size];
  int pieces = 0;
  std::int64_t rows = 0;

  void add(range next) {
    rows += next.count;
    if (pieces > 0 && piece[pieces - 1].first + piece[pieces - 1].count == next.first) {
      piece[pieces - 1].count += next.count;
    } else {
      piece[pieces++] = next;
    }
  }
  /// f(block) of the first n of them, which then wait no longer.
  template <class F>
  void hand_out(std::int64_t n, const F& f) {
    if (piece[0].count >= n) {
      f(scored_block{{piece[0].first, n}});
    } else {
      f(scored_block{{0, n}, piece});
    }
    rows -= n;
    int gone = 0;
    for (; gone < pieces && piece[gone].count <= n; ++gone) n -= piece[gone].count;
    pieces -= gone;
    std::copy_n(piece + gone, pieces, piece);
    piece[0] = {piece[0].first + n, piece[0].count - n};
  }
};

/// Which rows of a batch are scored: those whose target is not -100 and whose mask is not 0.
class scored_rows {
 public:
  scored_rows(const index_row& targets, const mask_row& mask) : targets_{targets}, mask_{mask} {}

  /// How many of the rows [first, last), and where the first of them is.
  scored_run find(std::int64_t first, std::int64_t last) const {
    if (all()) return {.first = first, .count = last - first};
    scored_run run;
    flags scored;
    for_each_block({first, last - first}, [&](range at) {
      ask_for_flags({at.first + (last - first), at.count});
      const int n = look(at, scored);
      if (n == 0) return;
      const std::int64_t begin = run.count == 0 ? scored.find(1, 0, at.count) : 0;
      if (run.count == 0) run.first = at.first + begin;
      const bool none_between =
          begin + n == at.count || scored.find(0, begin, begin + n) == begin + n;
      run.side_by_side =
          run.side_by_side && run.first + run.count == at.first + begin && none_between;
      run.count += n;
    });
    return run;
  }

  /// Whether any of them.
  bool any(std::int64_t first, std::int64_t last) const {
    if (all()) return first < last;
    flags scored;
    for (; first < last; first += block_size) {
      if (look({first, (std::min)(last - first, std::int64_t{block_size})}, scored) > 0)
        return true;
    }
    return false;
  }

  /// f(block) for the scored rows of [first, last), where this run was found, `block_size` of them
  /// at a time. None waits before or afterwards.
  template <class F>
  void for_each_block_of(const scored_run& run, std::int64_t first, std::int64_t last,
                         waiting_rows& waiting, const F& f) const {
    if (run.side_by_side) {
      for_each_block({run.first, run.count}, [&](range at) { f(scored_block{at}); });
    } else {
      for_each_gathered_block(first, last, waiting, f);
    }
  }

 private:
  bool all() const { return targets_.empty() && mask_.empty(); }

  /// Asks for what is known of later rows, at which a sequence was last looked too long ago for
  /// hardware to foresee them. (Never out of line, where GCC takes this for nothing at all.)
  PROSPECT_INLINE void ask_for_flags(range at) const {
    const auto ask_for_row = [at](const auto& row) __attribute__((always_inline)) {
      if (row.address(1) - row.address(0) > 8) return;  // apart
      const std::byte* const end = row.address(at.first + at.count);
      for (const std::byte* p = row.address(at.first); p < end; p += 64) ask_for(p);
    };
    if (!targets_.empty()) ask_for_row(targets_);
    if (!mask_.empty()) ask_for_row(mask_);
  }

  /// For each row of a block, and for what is left of its last word, 1 if it is scored, else 0.
  struct flags {
    static constexpr int in_word = sizeof(std::uint64_t);
    alignas(64) std::uint8_t row[block_size + in_word];

    flags() { std::memset(row + block_size, 0, in_word); }

    /// The first place in [begin, end) that holds this, or `end`.
    std::int64_t find(int what, std::int64_t begin, std::int64_t end) const {
      std::uint64_t first;  // of rows, since those that are scored may alternate with others
      std::memcpy(&first, row + begin, sizeof(first));
      if (what == 0) first ^= 0x0101010101010101U;
      if (first != 0) {
        constexpr bool lowest = std::endian::native == std::endian::little;
        const int before = lowest ? std::countr_zero(first) : std::countl_zero(first);
        return (std::min)(end, begin + before / 8);
      }
      begin = (std::min)(end, begin + in_word);
      const void* const at = std::memchr(row + begin, what, static_cast<std::size_t>(end - begin));
      return at == nullptr ? end : static_cast<const std::uint8_t*>(at) - row;
    }
    /// How many of the first n are scored, of which each word of eight knows its own.
    int count(int n) const {
      static_assert(block_size / in_word < 256);
      std::uint64_t sums = 0;
      for (int i = 0; i < n; i += in_word) {
        std::uint64_t word;
        std::memcpy(&word, row + i, sizeof(word));
        sums += word;
      }
      constexpr std::uint64_t every_other = 0x00ff00ff00ff00ffU;
      sums = (sums & every_other) + (sums >> 8 & every_other);
      return static_cast<int>(sums * 0x0001000100010001U >> 48);
    }
  };

  /// Looks at the rows `at` of a batch that has targets or a mask, and counts those scored.
  int look(range at, flags& scored) const {
    const int n = static_cast<int>(at.count);
    std::fill_n(scored.row + n, -n & (flags::in_word - 1), std::uint8_t{0});
    if (!targets_.empty()) {
      targets_.visit([&]<class T>(strided_span<const T> row) {
        const auto is_scored = [first = row.data()](std::int64_t i) {
          return first[i] != static_cast<T>(ignored_target);
        };
        if (row.stride() == 1) return ask<false>(at, scored, is_scored);
        ask<false>(at, scored, [is_scored, stride = row.stride()](std::int64_t i) {
          return is_scored(i * stride);
        });
      });
    }
    if (!mask_.empty()) {
      mask_.visit([&](const auto& is_scored) {
        targets_.empty() ? ask<false>(at, scored, is_scored) : ask<true>(at, scored, is_scored);
      });
    }
    return scored.count(n);
  }

  /// `again`: of those that were scored so far.
  template <bool again, class Scored>
  static void ask(range at, flags& scored, const Scored& is_scored) {
    const auto look_at = [&](int i) __attribute__((always_inline)) {
      const int here = is_scored(at.first + i) ? 1 : 0;
      scored.row[i] = static_cast<std::uint8_t>(again ? scored.row[i] & here : here);
    };
    if (at.count == block_size) {  // a number of times that a compiler likes
      for (int i = 0; i < block_size; ++i) look_at(i);
    } else {
      for (int i = 0; i < static_cast<int>(at.count); ++i) look_at(i);
    }
  }

  template <class F>
  void for_each_gathered_block(std::int64_t first, std::int64_t last, waiting_rows& waiting,
                               const F& f) const {
    flags scored;
    for (std::int64_t t = first; t < last;) {
      range at{t, (std::min)(last - t, std::int64_t{block_size})};
      const int n = look(at, scored);
      t += at.count;
      if (n == 0) continue;
      if (waiting.rows == 0 && scored.row[0] == 0) {  // a prompt ends here
        t = at.first + scored.find(1, 0, at.count);
        continue;
      }
      for (std::int64_t begin = 0; begin < at.count;) {
        const std::int64_t end = scored.find(0, begin, at.count);
        if (begin < end) waiting.add({at.first + begin, end - begin});
        begin = scored.find(1, end, at.count);
      }
      if (waiting.rows >= block_size) waiting.hand_out(block_size, f);
    }
    if (waiting.rows > 0) waiting.hand_out(waiting.rows, f);
  }

  const index_row& targets_;
  const mask_row& mask_;
};

}  // namespace PROSPECT_CPU_ISA
}  // namespace prospect::inline v2::cpu::detail
PROSPECT_STRICT_END
