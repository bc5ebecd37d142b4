// Rows of indices: of either width, from whatever a host has.

#include <prospect/core/index_row.hpp>

#include <array>
#include <cstdint>
#include <span>
#include <type_traits>
#include <vector>

#include "catch.hpp"

namespace {

std::int64_t total(prospect::index_row row) {
  std::int64_t sum = 0;
  for (std::int64_t i = 0; i < row.size(); ++i) sum += row[i];
  return sum;
}

std::vector<std::int32_t> made() { return {1, -100, 5}; }

}  // namespace

TEMPLATE_TEST_CASE("indices come from pointers, containers and temporaries", "[index_row]",
                   std::int32_t, std::int64_t) {
  const std::array<TestType, 5> data{1, 2, 3, 40, 50};
  CHECK(total({data.data(), 5}) == 96);
  CHECK(total({data.data(), 3, 2}) == 54);
  CHECK(total({data.data() + 4, 5, -1}) == 96);
  CHECK(total(data) == 96);
  CHECK(total(std::span{data}.first(2)) == 3);
  CHECK(total(std::vector<TestType>(data.begin(), data.end())) == 96);
  CHECK(total(made()) == -94);
  CHECK(total({}) == 0);
}

TEST_CASE("what are no indices is not taken for some", "[index_row]") {
  STATIC_REQUIRE_FALSE(std::is_convertible_v<std::vector<float>&, prospect::index_row>);
  STATIC_REQUIRE_FALSE(std::is_convertible_v<std::vector<std::uint32_t>&, prospect::index_row>);
}
