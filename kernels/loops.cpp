// The loops over sequences for the instruction set this file is compiled for; PROSPECT_LOOPS names
// it.
#include "loops.hpp"

#include <prospect/losses/losses.hpp>

namespace prospect::kernels {

template <storage S, class L>
sequence_kernels<S, L> PROSPECT_LOOPS() {
  if constexpr (paired_loss<L>) {
    return cpu::detail::compiled_paired_kernels<S, L>();
  } else {
    return cpu::detail::compiled_unpaired_kernels<S, L>();
  }
}

#define PROSPECT_PAIRED(name)                                                                     \
  template sequence_kernels<float, prospect::name> PROSPECT_LOOPS<float, prospect::name>();       \
  template sequence_kernels<double, prospect::name> PROSPECT_LOOPS<double, prospect::name>();     \
  template sequence_kernels<bfloat16, prospect::name> PROSPECT_LOOPS<bfloat16, prospect::name>(); \
  template sequence_kernels<float16, prospect::name> PROSPECT_LOOPS<float16, prospect::name>();
#define PROSPECT_UNPAIRED(name) PROSPECT_PAIRED(name)
#include <prospect/losses/losses.def>

}  // namespace prospect::kernels
