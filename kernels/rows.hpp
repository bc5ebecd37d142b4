// The row kernels of one instruction set: what rows.cpp, compiled once for each, defines, and the
// choice among them.
#pragma once

#include <prospect/cpu/detail/row_kernels.hpp>

#if defined(PROSPECT_X86_ROWS)
#include <cpuid.h>
#endif

namespace prospect::kernels {

struct row_kernel_set {
  cpu::detail::row_kernels<float> f32;
  cpu::detail::row_kernels<double> f64;
  cpu::detail::row_kernels<bfloat16> bf16;
  cpu::detail::row_kernels<float16> f16;
};

// Those of the instruction sets that this archive was built for.
row_kernel_set baseline_rows();
row_kernel_set avx2_rows();
row_kernel_set avx512_rows();

#if defined(PROSPECT_X86_ROWS)
/// Clang 14 cannot be asked by name.
inline bool has_f16c() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
}
#endif

/// The widest that this machine has.
inline row_kernel_set best_rows() {
#if defined(PROSPECT_X86_ROWS)
  const auto has = [](auto... supported) { return (... && (supported != 0)); };
  const bool avx2 =
      has(__builtin_cpu_supports("avx2"), __builtin_cpu_supports("fma")) && has_f16c();
  if (avx2 && has(__builtin_cpu_supports("avx512f"), __builtin_cpu_supports("avx512bw"),
                  __builtin_cpu_supports("avx512dq"), __builtin_cpu_supports("avx512vl"))) {
    return avx512_rows();
  }
  if (avx2) return avx2_rows();
#endif
  return baseline_rows();
}

template <storage S>
cpu::detail::row_kernels<S> rows() {
  static const row_kernel_set best = best_rows();
  if constexpr (std::same_as<S, float>) return best.f32;
  if constexpr (std::same_as<S, double>) return best.f64;
  if constexpr (std::same_as<S, bfloat16>) return best.bf16;
  if constexpr (std::same_as<S, float16>) return best.f16;
}

}  // namespace prospect::kernels
