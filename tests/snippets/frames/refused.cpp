// frame of include/prospect/core/error.hpp, with my_engine::fatal(message)
// flags: -fno-exceptions
#include <prospect/prospect.hpp>

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace my_engine {

[[noreturn]] void fatal(const char* message) {
  std::puts(message);
  std::exit(std::strstr(message, "policy_rejected") == nullptr ? 1 : 0);
}

}  // namespace my_engine

// here

int main() {
  const float sum = -1;
  prospect::cpu::evaluate<float>(
      prospect::dpo{}, {.policy_chosen = prospect::strided_span<const float>{&sum, 1}}, {});
  return 2;  // it came back
}
