// The scored rows of a sequence in blocks, whatever stands between them: so that a token is worked
// on beside the same others, and added up with them, however its batch is laid out.
#pragma once

#include <prospect/core/index_row.hpp>
#include <prospect/core/mask_row.hpp>
#include <prospect/cpu/detail/flags.hpp>
#include <prospect/cpu/detail/rows.hpp>
#include <prospect/layout.hpp>

#include <algorithm>
#include <bit>
#include <cstdint>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cpu::detail {

/// The scored rows of a sequence: how many there are, and from where on if they lie side by side.
struct scored_run {
  std::int64_t first;  ///< or, where others lie between, minus the number of pieces they lie in
  std::int64_t count;

  bool side_by_side() const { return first >= 0; }
  /// Whether pieces are so short that rows one by one are no worse.
  bool in_shreds() const { return -8 * first > count; }
};
/// Those of a batch's first sequences, once they were looked for: where they lie side by side,
/// nobody reads the mask again.
struct known_runs {
  static constexpr std::int64_t most = 2048;
  scored_run of[most];
};

inline namespace PROSPECT_CPU_ISA {

/// Rows `at`; or where they do not lie side by side those of all that lie in these pieces.
struct scored_block {
  range at;
  pieces_at pieces{};

  std::int64_t row(std::int64_t i) const {
    if (pieces.row != nullptr) return pieces.row[at.first + i];
    if (pieces.piece == nullptr) return at.first + i;
    std::int64_t found = 0;
    for_each_piece(pieces.piece, {at.first + i, 1},
                   [&](std::int64_t, range piece) { found = piece.first; });
    return found;
  }
};

/// Rows that wait for their block to become full, in the pieces in which they lie.
struct waiting_rows {
  range piece[block_size + flags_in_word];
  std::int64_t row[block_size + flags_in_word];  ///< those that wait one by one instead
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
      f(scored_block{{0, n}, {.piece = piece}});
    }
    rows -= n;
    int gone = 0;
    for (; gone < pieces && piece[gone].count <= n; ++gone) n -= piece[gone].count;
    pieces -= gone;
    std::copy_n(piece + gone, pieces, piece);
    piece[0] = {piece[0].first + n, piece[0].count - n};
  }

  /// Rows of 64 from `first` on, one by one.
  void list(std::int64_t first, std::uint64_t scored) {
    for (; scored != 0; scored &= scored - 1) row[rows++] = first + std::countr_zero(scored);
  }
  template <class F>
  void hand_out_listed(std::int64_t n, const F& f) {
    f(scored_block{{0, n}, {.row = row}});
    rows -= n;
    std::copy_n(row + n, rows, row);
  }
};

/// Which rows of a batch are scored: those whose target is not -100 and whose mask is not 0.
class scored_rows {
 public:
  scored_rows(const index_row& targets, const mask_row& mask) : targets_{targets}, mask_{mask} {}

  /// How many of the rows [first, last), and where the first of them is.
  scored_run find(std::int64_t first, std::int64_t last) const {
    if (all()) return {.first = first, .count = last - first};
    scored_run run{.first = first, .count = 0};
    std::int64_t end = first;
    std::int64_t pieces = 0;
    for_each_word(first, last, [&](std::int64_t row, std::uint64_t scored) {
      if (run.count == 0) run.first = row + std::countr_zero(scored);
      const std::uint64_t before = run.count > 0 && end == row ? 1 : 0;
      pieces += std::popcount(scored & ~(scored << 1 | before));
      run.count += std::popcount(scored);
      end = row + flags_in_word - std::countl_zero(scored);
    });
    if (pieces > 1) run.first = -pieces;
    return run;
  }

  /// f(block) for the scored rows of [first, last), where this run was found, `block_size` of them
  /// at a time. None waits before or afterwards.
  template <class F>
  void for_each_block_of(const scored_run& run, std::int64_t first, std::int64_t last,
                         waiting_rows& waiting, const F& f) const {
    if (run.side_by_side()) {
      for_each_block({run.first, run.count}, [&](range at) { f(scored_block{at}); });
    } else if (run.in_shreds()) {
      for_each_word(first, last, [&](std::int64_t row, std::uint64_t scored) {
        waiting.list(row, scored);
        if (waiting.rows >= block_size) waiting.hand_out_listed(block_size, f);
      });
      if (waiting.rows > 0) waiting.hand_out_listed(waiting.rows, f);
    } else {
      for_each_word(first, last, [&](std::int64_t row, std::uint64_t scored) {
        for_each_run_of_flags(scored, [&](int begin, int n) { waiting.add({row + begin, n}); });
        if (waiting.rows >= block_size) waiting.hand_out(block_size, f);
      });
      if (waiting.rows > 0) waiting.hand_out(waiting.rows, f);
    }
  }

 private:
  bool all() const { return targets_.empty() && mask_.empty(); }

  /// Asks for what is known of later rows: those of the next sequence, which hardware does not
  /// foresee where much else is read in between; and where nothing is, soon enough. (Never out of
  /// line, where GCC takes this for nothing at all.)
  PROSPECT_INLINE void ask_for_flags(range at) const {
    const auto ask_for_row = [at](const auto& row) __attribute__((always_inline)) {
      if (row.address(1) - row.address(0) > 8) return;  // apart
      const std::byte* const end = row.address(at.first + at.count);
      for (const std::byte* p = row.address(at.first); p < end; p += 64) ask_for(p);
    };
    if (!targets_.empty()) ask_for_row(targets_);
    if (!mask_.empty()) ask_for_row(mask_);
  }

  static constexpr std::int64_t far_enough = 4096;

  /// f(row, scored) for every 64 rows from `row` on of which some are scored: a bit for each.
  template <class F>
  void for_each_word(std::int64_t first, std::int64_t last, const F& f) const {
    const std::uint8_t* const bytes = targets_.empty() ? mask_.bytes() : nullptr;
    for_each_block({first, last - first}, [&](range at) {
      ask_for_flags({at.first + (std::max)(last - first, far_enough), at.count});
      const auto hand_out = [&](range rows) {
        const std::uint64_t scored =
            bytes != nullptr ? word_of_bytes(bytes + rows.first, rows.count) : flags_of(rows);
        if (scored != 0) f(rows.first, scored);
      };
      for_each_block(at, hand_out, flags_in_word);
    });
  }
  /// A bit for each of these rows, at most 64, that is set where the row is scored.
  std::uint64_t flags_of(range rows) const {
    std::uint64_t scored = ~std::uint64_t{0};
    if (!targets_.empty()) {
      targets_.visit([&]<class T>(strided_span<const T> row) {
        const auto is_scored = [first = row.data()](std::int64_t i) {
          return first[i] != static_cast<T>(ignored_target);
        };
        if (row.stride() == 1) {
          scored = flags_of(rows, is_scored);
        } else {
          scored = flags_of(rows, [is_scored, stride = row.stride()](std::int64_t i) {
            return is_scored(i * stride);
          });
        }
      });
    }
    if (!mask_.empty()) {
      mask_.visit([&](const auto& is_scored) { scored &= flags_of(rows, is_scored); });
    }
    return scored;
  }
  /// The same where is_scored(row) says which are.
  template <class Scored>
  static std::uint64_t flags_of(range rows, const Scored& is_scored) {
    alignas(64) std::uint8_t scored[flags_in_word];
    const auto look_at = [&](int i) __attribute__((always_inline)) {
      scored[i] = is_scored(rows.first + i) ? 1 : 0;
    };
    if (rows.count == flags_in_word) {  // a number of times that a compiler likes
      for (int i = 0; i < flags_in_word; ++i) look_at(i);
    } else {
      for (int i = 0; i < static_cast<int>(rows.count); ++i) look_at(i);
    }
    return word_of_bytes(scored, rows.count);
  }

  const index_row& targets_;
  const mask_row& mask_;
};

}  // namespace PROSPECT_CPU_ISA
}  // namespace prospect::inline v2::cpu::detail
PROSPECT_STRICT_END
