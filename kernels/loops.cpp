// The loops over sequences and their tokens for the instruction set this file is compiled for;
// PROSPECT_LOOPS names it.
#include "loops.hpp"

namespace prospect::kernels {

template <std::floating_point R, class L>
sequence_kernels<R, L> PROSPECT_LOOPS() {
  if constexpr (paired_loss<L>) {
    return cpu::detail::compiled_paired_kernels<R, L>();
  } else if constexpr (unpaired_loss<L>) {
    return cpu::detail::compiled_unpaired_kernels<R, L>();
  } else {
    return cpu::detail::compiled_token_kernels<R, L>();
  }
}

template sequence_kernels<float, any_paired> PROSPECT_LOOPS<float, any_paired>();
template sequence_kernels<double, any_paired> PROSPECT_LOOPS<double, any_paired>();
template sequence_kernels<float, any_unpaired> PROSPECT_LOOPS<float, any_unpaired>();
template sequence_kernels<double, any_unpaired> PROSPECT_LOOPS<double, any_unpaired>();
template sequence_kernels<float, any_token> PROSPECT_LOOPS<float, any_token>();
template sequence_kernels<double, any_token> PROSPECT_LOOPS<double, any_token>();

}  // namespace prospect::kernels
