// The loops over sequences for the instruction set this file is compiled for; PROSPECT_LOOPS names
// it.
#include "loops.hpp"

#include <prospect/losses/losses.hpp>

namespace prospect::kernels {

template <std::floating_point R, class L>
sequence_kernels<R, L> PROSPECT_LOOPS() {
  if constexpr (paired_loss<L>) {
    return cpu::detail::compiled_paired_kernels<R, L>();
  } else {
    return cpu::detail::compiled_unpaired_kernels<R, L>();
  }
}

#define PROSPECT_PAIRED(name)                                                               \
  template sequence_kernels<float, prospect::name> PROSPECT_LOOPS<float, prospect::name>(); \
  template sequence_kernels<double, prospect::name> PROSPECT_LOOPS<double, prospect::name>();
#define PROSPECT_UNPAIRED(name) PROSPECT_PAIRED(name)
#include <prospect/losses/losses.def>

}  // namespace prospect::kernels
