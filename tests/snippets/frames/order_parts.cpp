// frame of docs/reduction_order.md, with three ranks have seen
#include <prospect/prospect.hpp>

#include <vector>

#include "frame.hpp"

int main() {
  // here
  REQUIRE(all.sum == 0);
  REQUIRE(all.count == 5);
}
