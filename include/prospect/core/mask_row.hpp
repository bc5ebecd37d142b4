// A mask apart from the targets, as hosts keep one: which rows count.
#pragma once

#include <prospect/core/extent.hpp>
#include <prospect/core/strided_span.hpp>

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <ranges>
#include <type_traits>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2 {

/// What a mask may be stored as. A bool is read as its byte, whatever that holds.
template <class M>
concept mask_element = std::same_as<M, std::uint8_t> || std::same_as<M, bool> ||
                       std::same_as<M, std::int32_t> || std::same_as<M, float>;

/// A row that says which rows of a batch are scored: those where it is not 0, NaN included. An
/// empty one is no mask: everything is scored.
class mask_row {
 public:
  PROSPECT_INLINE constexpr mask_row() = default;
  template <class M>
    requires(mask_element<std::remove_const_t<M>>)
  PROSPECT_HD constexpr mask_row(strided_span<M> row) noexcept
      : data_{row.data()},
        size_{row.size()},
        stride_{row.stride()},
        kind_{kind_of<std::remove_const_t<M>>()} {}
  /// From a pointer, as `strided_span` is.
  template <mask_element M>
  PROSPECT_HD constexpr mask_row(const M* data, std::int64_t size, std::int64_t stride = 1) noexcept
      : mask_row{strided_span<const M>{data, size, stride}} {}
  /// From any contiguous container of such elements that outlives the call.
  template <std::ranges::contiguous_range Row>
    requires(mask_element<std::ranges::range_value_t<Row>> &&
             std::convertible_to<Row &&, strided_span<const std::ranges::range_value_t<Row>>>)
  PROSPECT_INLINE constexpr mask_row(Row&& row) noexcept
      : mask_row{strided_span<const std::ranges::range_value_t<Row>>{row}} {}

  /// Whether row i is scored.
  PROSPECT_HD bool operator[](std::int64_t i) const noexcept {
    switch (kind_) {
      case kind::byte:
        return element<std::uint8_t>(i) != 0;
      case kind::whole:
        return element<std::int32_t>(i) != 0;
      default:
        // By its bits, so that neither a subnormal nor a NaN depends on the processor's mode.
        return (element<std::uint32_t>(i) & 0x7fffffffU) != 0;
    }
  }
  /// f of a function of i that tells whether row i is scored: another one for each kind of row, and
  /// so nothing that a loop has to ask.
  template <class F>
  void visit(const F& f) const {
    const auto as = [&]<class T>(T bits) {
      const auto* const data = static_cast<const T*>(data_);
      const auto is_scored = [data, bits](std::int64_t i) {
        T x;
        __builtin_memcpy(&x, data + i, sizeof(T));
        return (x & bits) != 0;
      };
      if (stride_ == 1) return f(is_scored);
      f([is_scored, stride = stride_](std::int64_t i) { return is_scored(i * stride); });
    };
    switch (kind_) {
      case kind::byte:
        return as(std::uint8_t{0xff});
      case kind::whole:
        return as(std::uint32_t{0xffffffffU});
      default:
        return as(std::uint32_t{0x7fffffffU});
    }
  }
  /// Where row i is, or would be.
  PROSPECT_INLINE const std::byte* address(std::int64_t i) const noexcept {
    return static_cast<const std::byte*>(data_) + i * stride_ * (kind_ == kind::byte ? 1 : 4);
  }
  /// Its bytes, if they are that and lie side by side; else null.
  PROSPECT_INLINE const std::uint8_t* bytes() const noexcept {
    const bool side_by_side = kind_ == kind::byte && stride_ == 1;
    return side_by_side ? static_cast<const std::uint8_t*>(data_) : nullptr;
  }
  PROSPECT_HD constexpr std::int64_t size() const noexcept { return size_; }
  PROSPECT_HD constexpr bool empty() const noexcept { return size_ == 0; }

  /// What makes it no description of memory ("<name> ..."), or nullptr; nothing is read.
  PROSPECT_INLINE const char* problem() const noexcept {
    const std::size_t bytes = kind_ == kind::byte ? 1 : 4;
    return detail::row_problem(data_, size_, stride_, bytes, bytes);
  }

 private:
  enum class kind : std::int32_t { byte, whole, number };

  template <mask_element M>
  PROSPECT_HD static constexpr kind kind_of() noexcept {
    if (sizeof(M) == 1) return kind::byte;
    return std::is_integral_v<M> ? kind::whole : kind::number;
  }
  template <class T>
  PROSPECT_HD T element(std::int64_t i) const noexcept {
    const T* const at = static_cast<const T*>(data_) + i * stride_;
#if defined(__CUDA_ARCH__)
    return __ldg(at);
#else
    T x;
    __builtin_memcpy(&x, at, sizeof(T));
    return x;
#endif
  }

  const void* data_ = nullptr;
  std::int64_t size_ = 0;
  std::int64_t stride_ = 1;
  kind kind_ = kind::byte;
};

static_assert(sizeof(bool) == 1);
static_assert(std::is_trivially_copyable_v<mask_row>);

}  // namespace prospect::inline v2
PROSPECT_STRICT_END
