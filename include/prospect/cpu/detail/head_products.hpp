// In which types a head pass multiplies. A GEMM that takes operands of 16 bits gets them as they
// are stored, and gradients of logits rounded to them; from any other all is widened before.
#pragma once

#include <prospect/core/dtype.hpp>
#include <prospect/core/matrix_view.hpp>
#include <prospect/cpu/detail/tiles.hpp>
#include <prospect/cpu/gemm.hpp>

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <limits>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cpu::detail {
inline namespace PROSPECT_CPU_ISA {

/// Of a head that is stored in S: what is multiplied to logits, whether a tile of the weight is
/// arranged for that, and what gradients of logits and all that they meet are multiplied as. Sums
/// are R.
template <storage Stored, storage OfLogits, storage OfGradients, bool arrange = false>
struct head_products {
  using S = Stored;
  using L = OfLogits;
  using G = OfGradients;
  using R = compute_t<S>;

  static constexpr bool arranges = arrange;
  static constexpr bool widens_for_logits = !std::same_as<L, S>;
  static constexpr bool widens_for_gradients = !std::same_as<G, S>;
};

/// run(products), of those that `multiply` takes.
template <storage S, gemm<compute_t<S>> Gemm, class Run>
auto with_products(const Gemm& multiply, const Run& run) {
  using R = compute_t<S>;
  if constexpr (narrow_gemm<Gemm, S>) {
    constexpr bool arranges = arranging_gemm<Gemm, S>;
    const narrow_products narrow = multiply.template narrow<S>();
    if constexpr (!std::same_as<S, float16>) {
      if (narrow == narrow_products::all) return run(head_products<S, S, S, arranges>{});
    }
    if (narrow != narrow_products::none) return run(head_products<S, S, R, arranges>{});
  }
  return run(head_products<S, R, R, arranging_gemm<Gemm, R>>{});
}

/// Rows of logits that `multiply` makes at a time: a multiple of those that chunks have.
template <class Products, class Gemm>
std::int64_t rows_at_once(const Gemm& multiply) {
  if constexpr (Products::arranges) {
    return (std::max)(multiply.template arranged_rows<typename Products::L>(), std::int64_t{1});
  } else {
    return (std::numeric_limits<std::int64_t>::max)();
  }
}

/// c = a b, or c += a b: of all rows at once or, by a GEMM that arranges, of a block of them after
/// the other. Those from `first` on come to `place(first, rows)`, and `made(first, c)` is called
/// while they are near.
template <bool arranges, storage T, class Gemm, class Place, class Made>
void multiply_by_blocks(const Gemm& multiply, const matrix_view<const T>& a,
                        const gemm_operand<T>& b, bool accumulate, const Place& place,
                        const Made& made) {
  if constexpr (arranges) {
    const std::int64_t most = (std::max)(multiply.template arranged_rows<T>(), std::int64_t{1});
    const auto times_b = multiply.arrange(b);
    for (std::int64_t first = 0; first < a.rows;) {
      const std::int64_t rows = (std::min)(most, a.rows - first);
      const auto c = place(first, rows);
      times_b(matrix_view<const T>{a.row(first), rows, a.columns, a.pitch}, c, accumulate);
      made(first, c);
      first += rows;
    }
  } else {
    const auto c = place(std::int64_t{0}, a.rows);
    multiply(gemm_operand<T>{.matrix = a}, b, c, accumulate);
    made(std::int64_t{0}, c);
  }
}

template <storage From, storage To>
void copy_row(const From* from, std::int64_t count, To* to) {
  if constexpr (std::same_as<From, To>) {
    std::copy(from, from + count, to);
  } else {
    for (std::int64_t j = 0; j < count; ++j) to[j] = store<To>(load(from[j]));
  }
}

/// Rows of G in the memory of as many of R: without gaps if those have none, or else each in the
/// front of its own.
template <storage G, std::floating_point R>
matrix_view<G> fronts_of(const matrix_view<R>& m) {
  if constexpr (std::same_as<G, R>) {
    return m;
  } else {
    const std::int64_t own = m.pitch * std::int64_t{sizeof(R) / sizeof(G)};
    return {reinterpret_cast<G*>(m.data), m.rows, m.columns,
            m.pitch == m.columns ? m.columns : own};
  }
}

/// Rounds a row to bf16, into memory that begins where it does or ends before.
PROSPECT_INLINE void narrow_row_in_place(const float* from, std::int64_t count, bfloat16* to) {
  using halves [[gnu::vector_size(sizeof(words) / 2)]] = std::uint16_t;
  std::int64_t j = 0;
  for (; j + lanes<float> <= count; j += lanes<float>) {
    const auto x = load_vector<floats>(from + j);
    const words quiet = (words)x | 0x400000U;  // of a NaN whose payload rounding would carry over
    const words rounded = ((words)x & 0x7fffffffU) > 0x7f800000U ? quiet : narrow(bfloat16{}, x);
    store_vector(to + j, __builtin_convertvector(rounded >> 16, halves));
  }
  for (; j < count; ++j) to[j] = store<bfloat16>(from[j]);
}

/// Rounds rows of R to G, where `fronts_of` has them, if these are not the same.
template <storage G, std::floating_point R>
matrix_view<G> narrow_in_place(const matrix_view<R>& m) {
  const matrix_view<G> narrow = fronts_of<G>(m);
  if constexpr (!std::same_as<G, R>) {
    for (std::int64_t i = 0; i < m.rows; ++i) {
      narrow_row_in_place(m.row(i), m.columns, narrow.row(i));
    }
  }
  return narrow;
}

}  // namespace PROSPECT_CPU_ISA
}  // namespace prospect::inline v2::cpu::detail
PROSPECT_STRICT_END
