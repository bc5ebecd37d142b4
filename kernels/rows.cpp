// The row kernels for the instruction set this file is compiled for; PROSPECT_ROWS names it.
// Nothing else is compiled for more than the baseline: an inline function of the standard library
// that found its way in here could be the one the linker keeps for all.
#include "rows.hpp"

namespace prospect::kernels {

row_kernel_set PROSPECT_ROWS() {
  return {.f32 = cpu::detail::compiled_kernels<float>(),
          .f64 = cpu::detail::compiled_kernels<double>(),
          .bf16 = cpu::detail::compiled_kernels<bfloat16>(),
          .f16 = cpu::detail::compiled_kernels<float16>()};
}

}  // namespace prospect::kernels
