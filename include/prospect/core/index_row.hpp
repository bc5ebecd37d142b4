// A row of indices of either width: targets, offsets, positions of pairs.
#pragma once

#include <prospect/core/extent.hpp>
#include <prospect/core/strided_span.hpp>

#include <concepts>
#include <cstddef>
#include <cstdint>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2 {

/// A row of int32 or int64 indices, read as int64: targets, or offsets of packed sequences.
class index_row {
 public:
  PROSPECT_INLINE constexpr index_row() = default;
  PROSPECT_INLINE constexpr index_row(strided_span<const std::int32_t> narrow) noexcept
      : narrow_{narrow} {}
  PROSPECT_INLINE constexpr index_row(strided_span<const std::int64_t> wide) noexcept
      : wide_{wide} {}
  /// From a pointer, as `strided_span` is.
  PROSPECT_HD constexpr index_row(const std::int32_t* data, std::int64_t size,
                                  std::int64_t stride = 1) noexcept
      : narrow_{data, size, stride} {}
  PROSPECT_HD constexpr index_row(const std::int64_t* data, std::int64_t size,
                                  std::int64_t stride = 1) noexcept
      : wide_{data, size, stride} {}
  /// From any contiguous container of int32 or int64 that outlives the call.
  template <class Row>
    requires(std::convertible_to<Row &&, strided_span<const std::int32_t>>)
  PROSPECT_INLINE constexpr index_row(Row&& row) noexcept : narrow_{row} {}
  template <class Row>
    requires(std::convertible_to<Row &&, strided_span<const std::int64_t>>)
  PROSPECT_INLINE constexpr index_row(Row&& row) noexcept : wide_{row} {}

  PROSPECT_HD constexpr std::int64_t operator[](std::int64_t i) const noexcept {
#if defined(__CUDA_ARCH__)
    // No kernel writes the indices it reads: they may come through the read-only cache.
    return wide_.empty() ? std::int64_t{__ldg(&narrow_[i])} : std::int64_t{__ldg(&wide_[i])};
#else
    return wide_.empty() ? narrow_[i] : wide_[i];
#endif
  }
  PROSPECT_HD constexpr std::int64_t size() const noexcept { return narrow_.size() + wide_.size(); }
  PROSPECT_HD constexpr bool empty() const noexcept { return size() == 0; }

  /// f of the row as it is stored.
  template <class F>
  auto visit(const F& f) const {
    return wide_.empty() ? f(narrow_) : f(wide_);
  }

  /// Where row i is, or would be.
  PROSPECT_INLINE const std::byte* address(std::int64_t i) const noexcept {
    return visit([i]<class T>(strided_span<const T> row) {
      return reinterpret_cast<const std::byte*>(row.data()) +
             i * row.stride() * std::int64_t{sizeof(T)};
    });
  }
  /// What makes it no description of memory ("<name> ..."), or nullptr; nothing is read.
  PROSPECT_INLINE const char* problem() const noexcept {
    const char* const narrow = detail::view_problem(narrow_);
    return narrow != nullptr ? narrow : detail::view_problem(wide_);
  }

 private:
  strided_span<const std::int32_t> narrow_;
  strided_span<const std::int64_t> wide_;
};

}  // namespace prospect::inline v2
PROSPECT_STRICT_END
