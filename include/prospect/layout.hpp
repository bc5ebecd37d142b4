// How tokens lie in a batch: which rows belong to which sequence (padded or packed), and which
// target each row is scored against.
#pragma once

#include <prospect/core/strided_span.hpp>

#include <cstdint>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v1 {

/// The target of a row that is not scored: prompt, padding, anything masked.
inline constexpr std::int64_t ignored_target = -100;

/// A row of int32 or int64 indices, read as int64: targets, or offsets of packed sequences.
class index_row {
 public:
  constexpr index_row() = default;
  constexpr index_row(strided_span<const std::int32_t> narrow) noexcept : narrow_{narrow} {}
  constexpr index_row(strided_span<const std::int64_t> wide) noexcept : wide_{wide} {}
  /// From any contiguous container of int32 or int64 that outlives the call.
  template <class Row>
    requires(std::convertible_to<Row &&, strided_span<const std::int32_t>>)
  constexpr index_row(Row&& row) noexcept : narrow_{row} {}
  template <class Row>
    requires(std::convertible_to<Row &&, strided_span<const std::int64_t>>)
  constexpr index_row(Row&& row) noexcept : wide_{row} {}

  PROSPECT_HD constexpr std::int64_t operator[](std::int64_t i) const noexcept {
#if defined(__CUDA_ARCH__)
    // No kernel writes the indices it reads: they may come through the read-only cache.
    return wide_.empty() ? std::int64_t{__ldg(&narrow_[i])} : std::int64_t{__ldg(&wide_[i])};
#else
    return wide_.empty() ? narrow_[i] : wide_[i];
#endif
  }
  PROSPECT_HD constexpr std::int64_t size() const noexcept { return narrow_.size() + wide_.size(); }

 private:
  strided_span<const std::int32_t> narrow_;
  strided_span<const std::int64_t> wide_;
};

/// Rows `[begin(i), end(i))` of a batch belong to sequence `i`. Padded `[B, T]` and packed
/// (`cu_seqlens`) batches are the same thing to every function of the library.
class sequence_layout {
 public:
  /// `sequences` blocks of `length` rows each.
  static constexpr sequence_layout padded(std::int64_t sequences, std::int64_t length) noexcept {
    sequence_layout layout;
    layout.sequences_ = sequences;
    layout.length_ = length;
    return layout;
  }
  /// `offsets` has one element more than there are sequences, starts at 0 and never decreases.
  static constexpr sequence_layout packed(index_row offsets) noexcept {
    sequence_layout layout;
    layout.sequences_ = offsets.size() > 0 ? offsets.size() - 1 : 0;
    layout.offsets_ = offsets;
    return layout;
  }

  /// Whether offsets were given; they may lie on a device.
  constexpr bool packed() const noexcept { return offsets_.size() > 0; }
  PROSPECT_HD constexpr std::int64_t sequences() const noexcept { return sequences_; }
  PROSPECT_HD constexpr std::int64_t begin(std::int64_t i) const noexcept {
    return offsets_.size() > 0 ? offsets_[i] : i * length_;
  }
  PROSPECT_HD constexpr std::int64_t end(std::int64_t i) const noexcept { return begin(i + 1); }

  /// Why this layout does not describe `rows` rows, or nullptr.
  constexpr const char* problem(std::int64_t rows) const noexcept {
    if (offsets_.size() == 0) {
      if (sequences_ < 0 || length_ < 0) return "has a negative size";
      // By division, so that no product of the caller's numbers can overflow.
      const bool covers =
          length_ == 0 ? rows == 0 : rows % length_ == 0 && rows / length_ == sequences_;
      return covers ? nullptr : "does not cover the rows: sequences x length must be their number";
    }
    if (offsets_[0] != 0) return "does not start at row 0";
    for (std::int64_t i = 0; i < sequences_; ++i) {
      if (end(i) < begin(i)) return "has decreasing offsets";
    }
    return begin(sequences_) == rows ? nullptr : "does not end at the last row";
  }

 private:
  std::int64_t sequences_ = 0;
  std::int64_t length_ = 0;
  index_row offsets_;
};

}  // namespace prospect::inline v1
PROSPECT_STRICT_END
