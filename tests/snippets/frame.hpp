// What frames share: a check that ends the program with a message, and closeness.
#pragma once

#include <cmath>
#include <cstdio>
#include <cstdlib>

namespace frame {

inline void require(bool right, const char* what) {
  if (right) return;
  std::printf("after the snippet this is not so: %s\n", what);
  std::exit(1);
}
inline bool near(double got, double expected) {
  return std::abs(got - expected) <= 1e-6 * (1 + std::abs(expected));
}

}  // namespace frame

#define REQUIRE(what) frame::require(what, #what)
