// The row kernels of each instruction set, rows.cpp, and the best of them.
#pragma once

#include "isa.hpp"

#include <prospect/cpu/detail/row_kernels.hpp>

namespace prospect::kernels {

template <storage S>
cpu::detail::row_kernels<S> baseline_rows();
template <storage S>
cpu::detail::row_kernels<S> avx2_rows();
template <storage S>
cpu::detail::row_kernels<S> avx512_rows();

template <storage S>
cpu::detail::row_kernels<S> rows_for([[maybe_unused]] isa set) {
#if defined(PROSPECT_WITH_AVX512)
  if (set == isa::avx512) return avx512_rows<S>();
#endif
#if defined(PROSPECT_WITH_AVX2)
  if (set >= isa::avx2) return avx2_rows<S>();
#endif
  return baseline_rows<S>();
}

template <storage S>
cpu::detail::row_kernels<S> rows() {
  return rows_for<S>(best_isa());
}

}  // namespace prospect::kernels
