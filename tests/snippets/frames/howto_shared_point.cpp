// frame of docs/howto/ranks.md, with prospect::sum_count seen
#include <prospect/prospect.hpp>

#include <vector>

#include "frame.hpp"

int main() {
  const auto all_reduce_sum = [](double x) { return x + 1; };  // a rank that saw 1 nat in one row
  const std::vector<double> kl_policy{-30, -31}, kl_reference{-31, -32.5};
  // here
  REQUIRE(frame::near(z.z, 3.5 / 3));
}
