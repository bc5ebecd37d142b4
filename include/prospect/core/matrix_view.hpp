// A matrix of logits: rows of tokens, columns of vocabulary, a pitch that may exceed the columns.
#pragma once

#include <prospect/core/storage_of.hpp>

#include <concepts>
#include <cstdint>
#include <type_traits>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2 {

/// A row-major view: element (i, j) lies at `data[i * pitch + j]`. The pitch is counted in
/// elements; columns between `columns` and `pitch` (a padded vocabulary) are neither read nor
/// written, unless `token_options::zero_padding` says so. A matrix of one row has no pitch.
template <class T>
struct matrix_view {
  T* data = nullptr;
  std::int64_t rows = 0;
  std::int64_t columns = 0;
  std::int64_t pitch = 0;

  PROSPECT_INLINE constexpr matrix_view() = default;
  PROSPECT_HD constexpr matrix_view(T* first, std::int64_t row_count, std::int64_t column_count,
                                    std::int64_t row_pitch) noexcept
      : data{first}, rows{row_count}, columns{column_count}, pitch{row_pitch} {}
  PROSPECT_HD constexpr matrix_view(T* first, std::int64_t row_count,
                                    std::int64_t column_count) noexcept
      : matrix_view{first, row_count, column_count, column_count} {}

  /// `T` to `const T`, never back.
  template <class U>
    requires(!std::same_as<U, T> && std::convertible_to<U (*)[], T (*)[]>)
  PROSPECT_HD constexpr matrix_view(matrix_view<U> other) noexcept
      : matrix_view{other.data, other.rows, other.columns, other.pitch} {}

  /// From the same of a type that is stored as T is (storage_of.hpp): `__half`, `std::bfloat16_t`.
  template <detail::stored_as_type<T> U>
  PROSPECT_HD matrix_view(U* first, std::int64_t row_count, std::int64_t column_count,
                          std::int64_t row_pitch) noexcept
      : matrix_view{detail::as_storage<T>(first), row_count, column_count, row_pitch} {}
  template <detail::stored_as_type<T> U>
  PROSPECT_HD matrix_view(U* first, std::int64_t row_count, std::int64_t column_count) noexcept
      : matrix_view{first, row_count, column_count, column_count} {}
  template <detail::stored_as_type<T> U>
  PROSPECT_HD matrix_view(matrix_view<U> other) noexcept
      : matrix_view{other.data, other.rows, other.columns, other.pitch} {}

  PROSPECT_HD constexpr T* row(std::int64_t i) const noexcept { return data + i * pitch; }
};

static_assert(std::is_trivially_copyable_v<matrix_view<float>>);

}  // namespace prospect::inline v2
PROSPECT_STRICT_END
