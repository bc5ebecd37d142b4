// What nvcc's --use_fast_math takes for something faster, asked for so that it does not: fp32 exp,
// log and division as accurate as they are without the flag, and without it the same instructions.
// No macro tells a header of that flag.
#pragma once

#include <prospect/core/number.hpp>

#include <cmath>
#include <concepts>

#if defined(__CUDA_ARCH__) && defined(__NVCC__)
#define PROSPECT_LIBDEVICE
// Of libdevice, which nvcc links by itself: `expf` and `logf` are these two but for the flag. The
// third asks for a flag of the compiler and is a constant before anything is optimised.
extern "C" __device__ float __nv_expf(float);
extern "C" __device__ float __nv_logf(float);
extern "C" __device__ int __nvvm_reflect(const char*);
#endif

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::detail::precise {

template <std::floating_point R>
PROSPECT_HD inline R exp(R x) noexcept {
#if defined(PROSPECT_LIBDEVICE)
  if constexpr (std::same_as<R, float>) return __nv_expf(x);
#endif
  return std::exp(x);
}

template <std::floating_point R>
PROSPECT_HD inline R log(R x) noexcept {
#if defined(PROSPECT_LIBDEVICE)
  if constexpr (std::same_as<R, float>) return __nv_logf(x);
#endif
  return std::log(x);
}

template <number R>
PROSPECT_HD constexpr R divide(R a, R b) noexcept {
#if defined(PROSPECT_LIBDEVICE)
  if constexpr (std::same_as<R, float>) {
    if (!__builtin_is_constant_evaluated() && __nvvm_reflect("__CUDA_PREC_DIV") == 0) {
      return __fdiv_rn(a, b);
    }
  }
#endif
  return a / b;
}

/// 1 / x for x from 1 to 4, where a device needs none of the branches of a division: an estimate to
/// the last digit, and a step of Newton's.
template <number R>
PROSPECT_HD inline R inverse(R x) noexcept {
#if defined(PROSPECT_LIBDEVICE)
  if constexpr (std::same_as<R, float>) {
    float estimate;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(estimate) : "f"(x));
    return std::fma(estimate, std::fma(-x, estimate, 1.0F), estimate);
  }
#endif
  return divide(R(1), x);
}

}  // namespace prospect::inline v2::detail::precise
PROSPECT_STRICT_END
