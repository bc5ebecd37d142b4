// The loops over sequences and their tokens of each instruction set, loops.cpp, and the best of
// them, for any loss of losses.def of a kind: one for arithmetic in fp32, one in fp64. Which loss
// it is and what rows are stored as is a matter of run time.
#pragma once

#include "isa.hpp"

#include <prospect/cpu/detail/sequence_kernels.hpp>
#include <prospect/cpu/detail/token_loss_loops.hpp>
#include <prospect/losses/any.hpp>

#include <type_traits>

namespace prospect::kernels {

template <std::floating_point R, class L>
using sequence_kernels =
    std::conditional_t<paired_loss<L>, cpu::detail::paired_kernels<R, L>,
                       std::conditional_t<unpaired_loss<L>, cpu::detail::unpaired_kernels<R, L>,
                                          cpu::detail::token_kernels<R, L>>>;

template <std::floating_point R, class L>
sequence_kernels<R, L> baseline_loops();
template <std::floating_point R, class L>
sequence_kernels<R, L> avx2_loops();
template <std::floating_point R, class L>
sequence_kernels<R, L> avx512_loops();

template <std::floating_point R, class L>
sequence_kernels<R, L> loops_for([[maybe_unused]] isa set) {
#if defined(PROSPECT_WITH_AVX512)
  if (set == isa::avx512) return avx512_loops<R, L>();
#endif
#if defined(PROSPECT_WITH_AVX2)
  if (set >= isa::avx2) return avx2_loops<R, L>();
#endif
  return baseline_loops<R, L>();
}

template <std::floating_point R, class L>
sequence_kernels<R, L> loops() {
  return loops_for<R, L>(best_isa());
}

}  // namespace prospect::kernels
