// frame of docs/install.md, with void prospect::refused(const char* message)
// flags: -fno-exceptions
#include <prospect/prospect.hpp>

#include <csignal>
#include <cstdio>
#include <cstdlib>

// here

int main() {
  std::signal(SIGABRT, [](int) { std::_Exit(0); });  // as it should
  const float sum = -1;
  prospect::cpu::evaluate<float>(
      prospect::dpo{}, {.policy_chosen = prospect::strided_span<const float>{&sum, 1}}, {});
  return 2;  // it came back
}
