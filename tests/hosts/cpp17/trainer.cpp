// A trainer in C++17 that has one object of C++20.
#include "alignment.hpp"

#include <cmath>
#include <cstdio>
#include <stdexcept>

#if __cplusplus >= 202002L
#error "this is to be compiled as C++17"
#endif

int main() {
  const std::vector<float> chosen{-12.5F, -3.0F}, rejected{-11.0F, -7.25F};
  const alignment step = align(chosen, rejected, chosen, rejected);
  bool refused = false;
  try {
    align(chosen, {-1.0F}, chosen, rejected);
  } catch (const std::invalid_argument& error) {
    refused = true;
    std::puts(error.what());
  }
  // At step 0 policy and reference agree: the loss is log 2, a coefficient beta / 2 over two pairs.
  const bool right = refused && std::abs(step.loss - std::log(2.0)) < 1e-6 &&
                     std::abs(step.d_chosen[0] + 0.025F) < 1e-8F &&
                     std::abs(step.d_rejected[1] - 0.025F) < 1e-8F;
  std::puts(right ? "right" : "WRONG");
  return right ? 0 : 1;
}
