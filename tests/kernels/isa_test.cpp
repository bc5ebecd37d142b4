// The instruction set that the archive finds is the one that the compiler's own question finds, so
// that a wrong choice is not taken for a machine without the better one.

#include <kernels/isa.hpp>

#include "catch.hpp"

TEST_CASE("the widest instruction set of this machine is found", "[isa]") {
  using prospect::kernels::isa;
  const isa found = prospect::kernels::find_isa();
#if defined(__x86_64__)
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl");
  CHECK(found == (avx512 ? isa::avx512 : avx2 ? isa::avx2 : isa::baseline));
#else
  CHECK(found == isa::baseline);
#endif
}
