// Products of numbers so small that a processor would take a hundred cycles for each result: those
// of gradients by a very small coefficient, or of tokens far less probable than others. Such a tile
// is multiplied by a power of two before it goes into the GEMM, and what comes out divided by it;
// no other number changes by that.
#pragma once

#include <prospect/core/matrix_view.hpp>
#include <prospect/core/strict.hpp>
#include <prospect/cpu/detail/row_kernels.hpp>
#include <prospect/cpu/gemm.hpp>

#include <cstdint>
#include <span>
#include <type_traits>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cpu::detail {

inline namespace PROSPECT_CPU_ISA {

template <std::floating_point R>
struct raised {
  static constexpr R by = R(0x1p40), back = R(0x1p-40);
  /// Below, a product with an ordinary number may be subnormal.
  static constexpr R tiny = smallest_normal<R> * R(0x1p30);
  /// Tiles with such numbers are left alone, and sums that are as large: lest anything overflow.
  static constexpr R large = R(0x1p40), large_sum = R(0x1p80);
};

/// Whether a tile has numbers that are tiny, 0 aside, and large ones, NaN included. To be asked for
/// while a row is still near.
template <std::floating_point R>
class extremes {
 public:
  bool tiny() const { return lowest_ < bits_of(raised<R>::tiny) - 1; }
  bool large(R from = raised<R>::large) const { return highest_ >= bits_of(from); }

  void add(const R* x, std::int64_t count) {
    using vector = typename lane_types<R>::bits;
    vector lowest = vector{} - 1;
    vector highest{};
    const auto look = [&](const tile<R>& t) __attribute__((always_inline)) {
      unrolled<ways>([&](int w) __attribute__((always_inline)) {
        const auto magnitude = (vector)without_sign(t.way[w]);
        const vector less_one = magnitude - 1;  // of 0 the largest of all
        lowest = less_one < lowest ? less_one : lowest;
        highest = magnitude > highest ? magnitude : highest;
      });
    };
    std::int64_t i = 0;
    for (; i + tile_size<R> <= count; i += tile_size<R>) look(load_tile(x + i));
    if (i < count) look(load_part(x + i, count - i, R(0)));
    for (int lane = 0; lane < lanes<R>; ++lane) {
      lowest_ = lowest[lane] < lowest_ ? lowest[lane] : lowest_;
      highest_ = highest[lane] > highest_ ? highest[lane] : highest_;
    }
  }

 private:
  using bits = std::remove_cvref_t<decltype(prospect::detail::magnitude_bits(R(0)))>;
  static constexpr bits bits_of(R x) { return prospect::detail::magnitude_bits(x); }

  bits lowest_ = static_cast<bits>(-1), highest_ = 0;
};

template <std::floating_point R>
void scale_matrix(const matrix_view<R>& m, R factor) {
  for (std::int64_t i = 0; i < m.rows; ++i) scale_row(m.row(i), m.columns, factor);
}

/// Whether products with a tile are better raised. `sums` are what they are added to; those without
/// rows are none.
template <std::floating_point R>
bool worth_raising(const extremes<R>& of_tile, std::span<const matrix_view<R>> sums) {
  if (!of_tile.tiny() || of_tile.large()) return false;
  extremes<R> of_sums;
  for (const matrix_view<R>& m : sums) {
    for (std::int64_t i = 0; i < m.rows; ++i) of_sums.add(m.row(i), m.columns);
  }
  return !of_sums.large(raised<R>::large_sum);
}

/// `multiply()` computes c = a b, or c += a b, where `a` may have been raised.
template <std::floating_point R, class Multiply>
void with_raised(bool is_raised, const matrix_view<R>& c, bool accumulate,
                 const Multiply& multiply) {
  if (is_raised && accumulate) scale_matrix(c, raised<R>::by);
  multiply();
  if (is_raised) scale_matrix(c, raised<R>::back);
}
template <storage T, class Gemm, std::floating_point R>
void multiply_raised(const Gemm& multiply, bool is_raised, const gemm_operand<T>& a,
                     const gemm_operand<T>& b, const matrix_view<R>& c, bool accumulate) {
  with_raised(is_raised, c, accumulate, [&] { multiply(a, b, c, accumulate); });
}

}  // namespace PROSPECT_CPU_ISA

}  // namespace prospect::inline v2::cpu::detail
PROSPECT_STRICT_END
