// frame of docs/howto/flags.md, with void prospect::refused(const char* message)
// flags: -fno-exceptions
#include <prospect/prospect.hpp>

#include <cstdio>
#include <cstdlib>

#undef EXIT_FAILURE
#define EXIT_FAILURE 0  // as it should

// here

int main() {
  const float sum = -1;
  prospect::cpu::evaluate<float>(
      prospect::dpo{}, {.policy_chosen = prospect::strided_span<const float>{&sum, 1}}, {});
  return 2;  // it came back
}
