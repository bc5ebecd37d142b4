// A row whose storage type is a matter of run time: where it starts, how many elements of what
// type, how far apart. Rows of one batch need not agree.
#pragma once

#include <prospect/core/dtype.hpp>
#include <prospect/core/extent.hpp>
#include <prospect/core/strict.hpp>
#include <prospect/core/strided_span.hpp>

#include <cstddef>
#include <ranges>
#include <type_traits>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2 {

/// A storage type by number: the same numbers as in the C API.
enum class dtype : std::int32_t { f32 = 0, f64 = 1, f16 = 2, bf16 = 3 };

template <storage S>
struct dtype_number;
template <>
struct dtype_number<float> : std::integral_constant<dtype, dtype::f32> {};
template <>
struct dtype_number<double> : std::integral_constant<dtype, dtype::f64> {};
template <>
struct dtype_number<float16> : std::integral_constant<dtype, dtype::f16> {};
template <>
struct dtype_number<bfloat16> : std::integral_constant<dtype, dtype::bf16> {};
template <storage S>
inline constexpr dtype dtype_of = dtype_number<S>::value;

PROSPECT_HD constexpr std::int64_t bytes_of(dtype type) noexcept {
  return type == dtype::f64 ? 8 : type == dtype::f32 ? 4 : 2;
}

namespace detail {

/// The float on that side of x which keeps its last bit 1 where bits are lost: rounded again, to
/// fewer digits, it is what x rounded once would be.
PROSPECT_HD constexpr float rounded_to_odd(double x) noexcept {
  const auto nearest = static_cast<float>(x);
  const auto back = static_cast<double>(nearest);
  const auto bits = bit_cast<std::uint32_t>(nearest);
  if (!(back < x || x < back) || (bits & 1U) != 0) return nearest;
  const bool too_large = magnitude_bits(back) > magnitude_bits(x);
  return bit_cast<float>(too_large ? bits - 1 : bits + 1);
}

/// x, rounded once to S.
template <storage S, std::floating_point R>
PROSPECT_HD constexpr S stored_as(R x) noexcept {
  if constexpr (std::same_as<R, double> && sizeof(S) == 2) {
    return store<S>(rounded_to_odd(x));
  } else {
    return store<S>(static_cast<compute_t<S>>(x));
  }
}

/// A container, view or array whose elements lie side by side and are of a storage type, or of one
/// that is stored as it is (storage_of.hpp).
template <class Row>
concept stored_range = std::ranges::contiguous_range<Row> && std::ranges::sized_range<Row> &&
                       stored<std::ranges::range_value_t<Row>>;

}  // namespace detail

/// An input row of any storage type. Made from whatever `strided_span<const S>` is made from, and
/// from temporaries too, which live as long as the call they are written in: a batch that is to
/// outlive it holds rows that do. Empty means "not given".
class const_any_row {
 public:
  PROSPECT_INLINE constexpr const_any_row() = default;
  PROSPECT_HD constexpr const_any_row(const void* data, dtype type, std::int64_t size,
                                      std::int64_t stride = 1) noexcept
      : data_{data}, size_{size}, stride_{stride}, type_{type} {}
  template <detail::stored T>
  PROSPECT_HD constexpr const_any_row(const T* data, std::int64_t size,
                                      std::int64_t stride = 1) noexcept
      : const_any_row{data, dtype_of<storage_of_t<T>>, size, stride} {}
  template <detail::stored T>
  PROSPECT_HD constexpr const_any_row(strided_span<T> row) noexcept
      : const_any_row{row.data(), row.size(), row.stride()} {}
  template <detail::stored_range Row>
  PROSPECT_INLINE constexpr const_any_row(Row&& row) noexcept
      : const_any_row{std::ranges::data(row), static_cast<std::int64_t>(std::ranges::size(row))} {}

  PROSPECT_HD constexpr const void* data() const noexcept { return data_; }
  PROSPECT_HD constexpr std::int64_t size() const noexcept { return size_; }
  PROSPECT_HD constexpr std::int64_t stride() const noexcept { return stride_; }
  PROSPECT_HD constexpr dtype type() const noexcept { return type_; }
  PROSPECT_HD constexpr bool empty() const noexcept { return size_ == 0; }

  /// As a row of S, which it must be made of.
  template <storage S>
  PROSPECT_HD strided_span<const S> as() const noexcept {
    return {static_cast<const S*>(data_), size_, stride_};
  }
  /// Element i, widened (or, from fp64 to fp32, rounded) for arithmetic in R.
  template <std::floating_point R>
  PROSPECT_HD R get(std::int64_t i) const noexcept {
    switch (type_) {
      case dtype::f64:
        return static_cast<R>(as<double>()[i]);
      case dtype::f16:
        return static_cast<R>(load(as<float16>()[i]));
      case dtype::bf16:
        return static_cast<R>(load(as<bfloat16>()[i]));
      default:
        return static_cast<R>(as<float>()[i]);
    }
  }

 private:
  const void* data_ = nullptr;
  std::int64_t size_ = 0;
  std::int64_t stride_ = 1;
  dtype type_ = dtype::f32;
};

/// An output row of any storage type; never made from anything const. Empty means "not wanted".
class any_row {
 public:
  PROSPECT_INLINE constexpr any_row() = default;
  PROSPECT_HD constexpr any_row(void* data, dtype type, std::int64_t size,
                                std::int64_t stride = 1) noexcept
      : data_{data}, size_{size}, stride_{stride}, type_{type} {}
  template <detail::stored T>
    requires(!std::is_const_v<T>)
  PROSPECT_HD constexpr any_row(T* data, std::int64_t size, std::int64_t stride = 1) noexcept
      : any_row{data, dtype_of<storage_of_t<T>>, size, stride} {}
  template <detail::stored T>
    requires(!std::is_const_v<T>)
  PROSPECT_HD constexpr any_row(strided_span<T> row) noexcept
      : any_row{row.data(), row.size(), row.stride()} {}
  /// From a container that outlives the call.
  template <detail::stored_range Row>
    requires(std::ranges::borrowed_range<Row> &&
             !std::is_const_v<std::remove_reference_t<std::ranges::range_reference_t<Row>>>)
  PROSPECT_INLINE constexpr any_row(Row&& row) noexcept
      : any_row{std::ranges::data(row), static_cast<std::int64_t>(std::ranges::size(row))} {}

  PROSPECT_HD constexpr void* data() const noexcept { return data_; }
  PROSPECT_HD constexpr std::int64_t size() const noexcept { return size_; }
  PROSPECT_HD constexpr std::int64_t stride() const noexcept { return stride_; }
  PROSPECT_HD constexpr dtype type() const noexcept { return type_; }
  PROSPECT_HD constexpr bool empty() const noexcept { return size_ == 0; }

  template <storage S>
  PROSPECT_HD strided_span<S> as() const noexcept {
    return {static_cast<S*>(data_), size_, stride_};
  }
  /// Sets element i to x, rounded once, and gives what now stands there.
  template <std::floating_point R>
  PROSPECT_HD R put(std::int64_t i, R x) const noexcept {
    switch (type_) {
      case dtype::f64:
        return put_as<double>(i, x);
      case dtype::f16:
        return put_as<float16>(i, x);
      case dtype::bf16:
        return put_as<bfloat16>(i, x);
      default:
        return put_as<float>(i, x);
    }
  }

 private:
  template <storage S, std::floating_point R>
  PROSPECT_HD R put_as(std::int64_t i, R x) const noexcept {
    const S stored = detail::stored_as<S>(x);
    as<S>()[i] = stored;
    return static_cast<R>(load(stored));
  }

  void* data_ = nullptr;
  std::int64_t size_ = 0;
  std::int64_t stride_ = 1;
  dtype type_ = dtype::f32;
};

static_assert(std::is_trivially_copyable_v<const_any_row> && std::is_trivially_copyable_v<any_row>);

namespace detail {

PROSPECT_INLINE const char* view_problem(const const_any_row& row) noexcept {
  const auto width = static_cast<std::size_t>(bytes_of(row.type()));
  return row_problem(row.data(), row.size(), row.stride(), width, width);
}
PROSPECT_INLINE const char* view_problem(const any_row& row) noexcept {
  return view_problem(const_any_row{row.data(), row.type(), row.size(), row.stride()});
}

}  // namespace detail

}  // namespace prospect::inline v2
PROSPECT_STRICT_END
