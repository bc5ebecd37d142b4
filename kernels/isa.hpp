// The instruction sets that the archive has kernels for, and the choice among them. Files that are
// compiled once for each get their functions' name from CMake (`avx2_rows`); nothing else is
// compiled for more than the baseline: an inline function of the standard library that found its
// way in there could be the one the linker keeps for all.
#pragma once

#if defined(PROSPECT_X86)
#include <cpuid.h>
#endif

namespace prospect::kernels {

enum class isa { baseline, avx2, avx512 };

#if defined(PROSPECT_X86)
/// Clang 14 cannot be asked by name.
inline bool has_f16c() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
}
#endif

/// The widest that this machine has.
inline isa find_isa() {
#if defined(PROSPECT_X86)
  const auto has = [](auto... supported) { return (... && (supported != 0)); };
  const bool avx2 =
      has(__builtin_cpu_supports("avx2"), __builtin_cpu_supports("fma")) && has_f16c();
  if (avx2 && has(__builtin_cpu_supports("avx512f"), __builtin_cpu_supports("avx512bw"),
                  __builtin_cpu_supports("avx512dq"), __builtin_cpu_supports("avx512vl"))) {
    return isa::avx512;
  }
  if (avx2) return isa::avx2;
#endif
  return isa::baseline;
}

inline isa best_isa() {
  static const isa best = find_isa();
  return best;
}

}  // namespace prospect::kernels
