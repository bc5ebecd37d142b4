// frame of docs/howto/padding.md, with sequence_layout::ranges(begins, ends)
#include <prospect/prospect.hpp>

#include <cstdint>
#include <vector>

#include "frame.hpp"

int main() {
  // here
  REQUIRE(padded.sequences() == 8 && padded.problem(8 * 1024) == nullptr);
  REQUIRE(packed.sequences() == 3 && packed.begin(1) == 3 && packed.end(1) == 10);
  REQUIRE(ranges.sequences() == 2 && ranges.gap(1) == 4 && ranges.problem(9) == nullptr);
}
