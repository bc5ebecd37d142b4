// How tokens lie in a batch: which rows belong to which sequence (padded, packed or as ranges), and
// which target each row is scored against.
#pragma once

#include <prospect/core/index_row.hpp>
#include <prospect/core/mask_row.hpp>

#include <cstdint>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2 {

/// The target of a row that is not scored: prompt, padding, anything masked.
inline constexpr std::int64_t ignored_target = -100;

namespace detail {

/// The targets of a batch, with what its mask leaves out as `ignored_target`. What a masked row's
/// target holds is nobody's business.
struct scored_targets {
  index_row targets;
  mask_row mask;

  PROSPECT_HD std::int64_t operator[](std::int64_t t) const noexcept {
    return mask.empty() || mask[t] ? targets[t] : ignored_target;
  }
  PROSPECT_HD std::int64_t size() const noexcept { return targets.size(); }
};

}  // namespace detail

/// Rows `[begin(i), end(i))` of a batch belong to sequence `i`. Batches that are padded (`[B, T]`),
/// packed (`cu_seqlens`) or given as ranges are the same thing to every function of the library.
class sequence_layout {
 public:
  /// `sequences` blocks of `length` rows each.
  PROSPECT_INLINE static constexpr sequence_layout padded(std::int64_t sequences,
                                                          std::int64_t length) noexcept {
    sequence_layout layout;
    layout.sequences_ = sequences;
    layout.length_ = length;
    return layout;
  }
  /// `offsets` has one element more than there are sequences, starts at 0 and never decreases.
  PROSPECT_INLINE static constexpr sequence_layout packed(index_row offsets) noexcept {
    sequence_layout layout;
    layout.sequences_ = offsets.size() > 0 ? offsets.size() - 1 : 0;
    layout.begins_ = offsets;
    return layout;
  }
  /// Sequence i is rows `[begins[i], ends[i])`: ascending, no row in two of them. Rows in front of,
  /// between and behind them belong to no sequence.
  PROSPECT_INLINE static constexpr sequence_layout ranges(index_row begins,
                                                          index_row ends) noexcept {
    sequence_layout layout;
    layout.sequences_ = begins.size();
    layout.begins_ = begins;
    layout.ends_ = ends;
    layout.ranges_ = true;
    return layout;
  }

  /// Whether blocks of one length are all there is to it, and nothing may lie on a device.
  PROSPECT_HD constexpr bool padded() const noexcept { return !ranges_ && begins_.size() == 0; }
  PROSPECT_HD constexpr std::int64_t sequences() const noexcept { return sequences_; }
  PROSPECT_HD constexpr std::int64_t begin(std::int64_t i) const noexcept {
    return begins_.size() > 0 ? begins_[i] : i * length_;
  }
  PROSPECT_HD constexpr std::int64_t end(std::int64_t i) const noexcept {
    return ranges_ ? ends_[i] : begin(i + 1);
  }
  /// Where the rows between sequence i - 1 and sequence i start, which belong to none: to be taken
  /// up to begin(i), or for i = sequences() up to the last row. Only ranges leave such rows.
  PROSPECT_HD constexpr std::int64_t gap(std::int64_t i) const noexcept {
    return i > 0 ? end(i - 1) : 0;
  }

  /// Why this layout does not describe `rows` rows, or nullptr.
  PROSPECT_INLINE const char* problem(std::int64_t rows) const noexcept {
    if (const char* why = shape_problem(rows)) return why;
    if (ranges_) {
      for (std::int64_t i = 0; i < sequences_; ++i) {
        if (begin(i) < gap(i)) return "has ranges that overlap, descend or start below row 0";
        if (end(i) < begin(i)) return "has a range that ends before it begins";
      }
      return gap(sequences_) <= rows ? nullptr : "has a range that ends beyond the last row";
    }
    if (begins_.size() == 0) return nullptr;
    if (begins_[0] != 0) return "does not start at row 0";
    for (std::int64_t i = 0; i < sequences_; ++i) {
      if (end(i) < begin(i)) return "has decreasing offsets";
    }
    return begin(sequences_) == rows ? nullptr : "does not end at the last row";
  }

  /// The same as far as it shows without a look at offsets and ranges, which may lie on a device.
  PROSPECT_INLINE const char* shape_problem(std::int64_t rows) const noexcept {
    if (begins_.problem() != nullptr || ends_.problem() != nullptr) {
      return "has offsets or ranges without data, misaligned, or larger than any memory";
    }
    if (ranges_) {
      return begins_.size() == ends_.size() ? nullptr : "has not as many ends as begins";
    }
    if (begins_.size() != 0) return nullptr;
    if (sequences_ < 0 || length_ < 0) return "has a negative size";
    // By division, so that no product of the caller's numbers can overflow.
    const bool covers =
        length_ == 0 ? rows == 0 : rows % length_ == 0 && rows / length_ == sequences_;
    return covers ? nullptr : "does not cover the rows: sequences x length must be their number";
  }

 private:
  std::int64_t sequences_ = 0;
  std::int64_t length_ = 0;
  index_row begins_, ends_;
  bool ranges_ = false;
};

}  // namespace prospect::inline v2
PROSPECT_STRICT_END
