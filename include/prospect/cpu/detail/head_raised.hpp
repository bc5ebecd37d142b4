// Products of numbers so small that a processor would take a hundred cycles for each result: those
// of gradients by a very small coefficient, or of tokens far less probable than others. Such a tile
// is multiplied by a power of two before it goes into the GEMM, and what comes out divided by it;
// no other number changes by that.
#pragma once

#include <prospect/core/matrix_view.hpp>
#include <prospect/cpu/detail/row_kernels.hpp>

#include <cstdint>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v1::cpu::detail {

inline namespace PROSPECT_CPU_ISA {

template <std::floating_point R>
struct raised {
  static constexpr R by = R(0x1p40), back = R(0x1p-40);
  /// Below, a product with an ordinary number may be subnormal.
  static constexpr R tiny = smallest_normal<R> * R(0x1p30);
  /// Tiles with such numbers are left alone, and sums that are as large: lest anything overflow.
  static constexpr R large = R(0x1p40), large_sum = R(0x1p80);
};

/// Whether there are numbers below a bound, 0 aside, or from another one on, NaN included.
struct extremes {
  bool low = false, high = false;
};

template <std::floating_point R>
extremes find_extremes(const R* x, std::int64_t count, R low, R high) {
  using bits = typename lane_types<R>::bits;
  // 0 - 1 is the largest of all.
  const bits below = (bits)every_lane<numbers<R>>(low) - 1;
  const bits from = (bits)every_lane<numbers<R>>(high);
  bits is_low{}, is_high{};
  const auto look = [&](const tile<R>& t) __attribute__((always_inline)) {
    unrolled<ways>([&](int w) __attribute__((always_inline)) {
      const bits magnitude = (bits)without_sign(t.way[w]);
      is_low |= (bits)(magnitude - 1 < below);
      is_high |= (bits)(magnitude >= from);
    });
  };
  std::int64_t i = 0;
  for (; i + tile_size<R> <= count; i += tile_size<R>) look(load_tile(x + i));
  if (i < count) look(load_part(x + i, count - i, R(0)));
  extremes found;
  for (int lane = 0; lane < lanes<R>; ++lane) {
    found.low = found.low || is_low[lane] != 0;
    found.high = found.high || is_high[lane] != 0;
  }
  return found;
}

template <std::floating_point R>
void scale_matrix(const matrix_view<R>& m, R factor) {
  for (std::int64_t i = 0; i < m.rows; ++i) scale_row(m.row(i), m.columns, factor);
}

/// Whether products with these rows are better raised. `sums` is what one of them is added to, or
/// has no rows.
template <std::floating_point R>
bool worth_raising(const matrix_view<R>& m, const matrix_view<R>& sums) {
  bool low = false;
  for (std::int64_t i = 0; i < m.rows; ++i) {
    const extremes row = find_extremes(m.row(i), m.columns, raised<R>::tiny, raised<R>::large);
    if (row.high) return false;
    low = low || row.low;
  }
  for (std::int64_t i = 0; low && i < sums.rows; ++i) {
    low = !find_extremes(sums.row(i), sums.columns, R(0), raised<R>::large_sum).high;
  }
  return low;
}

}  // namespace PROSPECT_CPU_ISA

}  // namespace prospect::inline v1::cpu::detail
PROSPECT_STRICT_END
