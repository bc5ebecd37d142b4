// What makes a row or a matrix no description of memory: the one place where sizes, strides and
// pitches are multiplied. Host and device views alike; nothing is read.
#pragma once

#include <prospect/core/matrix_view.hpp>
#include <prospect/core/strided_span.hpp>

#include <cstdint>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::detail {

/// No machine addresses more: neither more elements than this, however often one is repeated, nor
/// elements further apart.
inline constexpr std::int64_t most_bytes = std::int64_t{1} << 47;

/// a b, or more than `most_bytes` if it is; never overflows.
PROSPECT_INLINE constexpr std::int64_t product(std::int64_t a, std::int64_t b) noexcept {
  std::int64_t bytes = 0;
  const bool overflows = __builtin_mul_overflow(a, b, &bytes);
  return overflows || bytes > most_bytes || bytes < -most_bytes ? most_bytes + 1 : bytes;
}

PROSPECT_INLINE const char* address_problem(const void* data, std::size_t alignment) noexcept {
  if (data == nullptr) return "has no data";
  if ((reinterpret_cast<std::uintptr_t>(data) & (alignment - 1)) != 0) {
    return "is not aligned to its elements";
  }
  return nullptr;
}

/// Of `size` elements of so many bytes, `stride` elements apart; or nullptr.
PROSPECT_INLINE const char* row_problem(const void* data, std::int64_t size, std::int64_t stride,
                                        std::size_t bytes, std::size_t alignment) noexcept {
  const auto width = static_cast<std::int64_t>(bytes);
  if (size < 0) return "has a negative size";
  if (size == 0) return nullptr;
  // Nearly every row is told by two comparisons: for these, no product comes near the limit.
  const bool ordinary =
      size <= std::int64_t{1} << 31 && stride <= 1 << 12 && stride >= -(1 << 12) && width <= 8;
  if (!ordinary &&
      (product(size, width) > most_bytes || product(stride, width) > most_bytes ||
       product(size - 1, product(stride < 0 ? -stride : stride, width)) > most_bytes)) {
    return "is larger than any memory: check its size and stride";
  }
  return address_problem(data, alignment);
}
template <class T>
PROSPECT_INLINE const char* view_problem(const strided_span<T>& row) noexcept {
  return row_problem(row.data(), row.size(), row.stride(), sizeof(T), alignof(T));
}

/// Of a matrix; or nullptr. One of a single row has no pitch.
PROSPECT_INLINE const char* matrix_problem(const void* data, std::int64_t rows,
                                           std::int64_t columns, std::int64_t pitch,
                                           std::size_t bytes, std::size_t alignment) noexcept {
  const auto width = static_cast<std::int64_t>(bytes);
  if (rows < 0 || columns < 0) return "has a negative size";
  if (rows > 1 && pitch < columns) return "has a pitch smaller than its columns";
  if (product(rows, width) > most_bytes || product(columns, width) > most_bytes ||
      (rows > 1 && product(rows, product(pitch, width)) > most_bytes)) {
    return "is larger than any memory: check its sizes and pitch";
  }
  return rows == 0 || columns == 0 ? nullptr : address_problem(data, alignment);
}
template <class T>
PROSPECT_INLINE const char* view_problem(const matrix_view<T>& m) noexcept {
  return matrix_problem(m.data, m.rows, m.columns, m.pitch, sizeof(T), alignof(T));
}

}  // namespace prospect::inline v2::detail
PROSPECT_STRICT_END
