// The matrix product of the trainer, its head included: oneDNN's where CMake found it, else
// Eigen's, which is a BLAS's where that was found.
#pragma once

#ifdef ALIGN_WITH_ONEDNN
#include <prospect/cpu/gemm_onednn.hpp>
#else
#include <prospect/cpu/gemm.hpp>
#endif

namespace align {

#ifdef ALIGN_WITH_ONEDNN
using fast_gemm = prospect::cpu::onednn_gemm;
#else
using fast_gemm = prospect::cpu::eigen_gemm;
#endif

}  // namespace align
