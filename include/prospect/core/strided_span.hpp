// A row: where it starts, how many elements, how far apart. The only way data enters or leaves.
#pragma once

#include <prospect/core/storage_of.hpp>

#include <concepts>
#include <cstdint>
#include <iterator>
#include <ranges>
#include <type_traits>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2 {

/// A view of `size` elements, `stride` elements apart. Owns nothing; passed by value, also to
/// kernels.
///
/// A default-constructed (empty) span means "not given" for an input and "not wanted" for an
/// output. The stride may be negative (a reversed row); 0 repeats one element, which is meant for
/// inputs only. The data must be aligned to its element, as C++ demands of any `T*`, and to nothing
/// wider.
template <class T>
class strided_span {
 public:
  using element_type = T;
  using value_type = std::remove_cv_t<T>;

  PROSPECT_INLINE constexpr strided_span() = default;
  PROSPECT_HD constexpr strided_span(T* data, std::int64_t size, std::int64_t stride = 1) noexcept
      : data_{data}, size_{size}, stride_{stride} {}

  /// From any contiguous container: `std::vector`, `std::span`, an array. To be read (`const T`)
  /// also from a temporary, which lives as long as the call it is written in; a span or batch that
  /// is to outlive the call is made from what outlives it too.
  template <std::ranges::contiguous_range Row>
    requires(std::ranges::sized_range<Row> &&
             (std::ranges::borrowed_range<Row&&> || std::is_const_v<T>) &&
             std::convertible_to<std::remove_reference_t<std::ranges::range_reference_t<Row>> (*)[],
                                 T (*)[]>)
  PROSPECT_INLINE constexpr strided_span(Row&& row) noexcept
      : data_{std::ranges::data(row)}, size_{static_cast<std::int64_t>(std::ranges::size(row))} {}

  /// `T` to `const T`, never back.
  template <class U>
    requires(!std::same_as<U, T> && std::convertible_to<U (*)[], T (*)[]>)
  PROSPECT_HD constexpr strided_span(strided_span<U> other) noexcept
      : data_{other.data()}, size_{other.size()}, stride_{other.stride()} {}

  /// From the same of a type that is stored as T is (storage_of.hpp): `__half`, `std::bfloat16_t`.
  template <detail::stored_as_type<T> U>
  PROSPECT_HD strided_span(U* data, std::int64_t size, std::int64_t stride = 1) noexcept
      : strided_span{detail::as_storage<T>(data), size, stride} {}
  template <std::ranges::contiguous_range Row>
    requires(
        std::ranges::sized_range<Row> &&
        (std::ranges::borrowed_range<Row&&> || std::is_const_v<T>) &&
        detail::stored_as_type<std::remove_reference_t<std::ranges::range_reference_t<Row>>, T>)
  PROSPECT_INLINE strided_span(Row&& row) noexcept
      : strided_span{std::ranges::data(row), static_cast<std::int64_t>(std::ranges::size(row))} {}
  template <detail::stored_as_type<T> U>
  PROSPECT_HD strided_span(strided_span<U> other) noexcept
      : strided_span{other.data(), other.size(), other.stride()} {}

  PROSPECT_HD constexpr T& operator[](std::int64_t i) const noexcept { return data_[i * stride_]; }
  PROSPECT_HD constexpr T* data() const noexcept { return data_; }
  PROSPECT_HD constexpr std::int64_t size() const noexcept { return size_; }
  PROSPECT_HD constexpr std::int64_t stride() const noexcept { return stride_; }
  PROSPECT_HD constexpr bool empty() const noexcept { return size_ == 0; }

  /// Elements `[first, first + count)` of this row.
  PROSPECT_HD constexpr strided_span slice(std::int64_t first, std::int64_t count) const noexcept {
    return {data_ + first * stride_, count, stride_};
  }

 private:
  T* data_ = nullptr;
  std::int64_t size_ = 0;
  std::int64_t stride_ = 1;
};

static_assert(std::is_trivially_copyable_v<strided_span<float>>);
static_assert(std::convertible_to<strided_span<float>, strided_span<const float>>);
static_assert(!std::convertible_to<strided_span<const float>, strided_span<float>>);

}  // namespace prospect::inline v2
PROSPECT_STRICT_END
