// The loops over sequences of each instruction set, loops.cpp, and the best of them, for every loss
// of losses.def.
#pragma once

#include "isa.hpp"

#include <prospect/cpu/detail/sequence_kernels.hpp>

#include <type_traits>

namespace prospect::kernels {

template <storage S, class L>
using sequence_kernels = std::conditional_t<paired_loss<L>, cpu::detail::paired_kernels<S, L>,
                                            cpu::detail::unpaired_kernels<S, L>>;

template <storage S, class L>
sequence_kernels<S, L> baseline_loops();
template <storage S, class L>
sequence_kernels<S, L> avx2_loops();
template <storage S, class L>
sequence_kernels<S, L> avx512_loops();

template <storage S, class L>
sequence_kernels<S, L> loops_for([[maybe_unused]] isa set) {
#if defined(PROSPECT_X86)
  if (set == isa::avx512) return avx512_loops<S, L>();
  if (set == isa::avx2) return avx2_loops<S, L>();
#endif
  return baseline_loops<S, L>();
}

template <storage S, class L>
sequence_kernels<S, L> loops() {
  return loops_for<S, L>(best_isa());
}

}  // namespace prospect::kernels
