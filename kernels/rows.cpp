// The row kernels for the instruction set this file is compiled for; PROSPECT_ROWS names it.
#include "rows.hpp"

namespace prospect::kernels {

template <storage S>
cpu::detail::row_kernels<S> PROSPECT_ROWS() {
  return cpu::detail::compiled_kernels<S>();
}

template cpu::detail::row_kernels<float> PROSPECT_ROWS<float>();
template cpu::detail::row_kernels<double> PROSPECT_ROWS<double>();
template cpu::detail::row_kernels<bfloat16> PROSPECT_ROWS<bfloat16>();
template cpu::detail::row_kernels<float16> PROSPECT_ROWS<float16>();

}  // namespace prospect::kernels
