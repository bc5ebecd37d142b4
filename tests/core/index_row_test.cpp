// Rows of indices: of either width, from whatever a host has.

#include <prospect/core/index_row.hpp>

#include <array>
#include <cstdint>
#include <limits>
#include <span>
#include <type_traits>
#include <vector>

#include "catch.hpp"

namespace {

using prospect::index_row;

std::int64_t total(index_row row) {
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

TEST_CASE("index rows read int32 and int64 from any view of them", "[index_row]") {
  std::vector<std::int32_t> narrow{5, -100, 7};
  const std::vector<std::int64_t> wide{5, -100, std::int64_t{1} << 40};
  const index_row from_narrow = narrow;
  const index_row from_wide = wide;
  const index_row from_span = std::span<const std::int32_t>{narrow};
  const index_row backwards = prospect::strided_span<const std::int32_t>{narrow.data() + 2, 3, -1};
  const index_row writable = prospect::strided_span<std::int32_t>{narrow};
  CHECK(from_narrow[1] == -100);
  CHECK(from_wide[2] == std::int64_t{1} << 40);
  CHECK(from_span.size() == 3);
  CHECK(backwards[0] == 7);
  CHECK(writable[2] == 7);
  CHECK(index_row{}.size() == 0);
  CHECK(index_row{}.empty());
  CHECK(index_row{narrow.data() + 2, 2, -2}[1] == 5);
  CHECK(index_row{wide.data(), 3}[2] == std::int64_t{1} << 40);
  CHECK(from_wide.size() == 3);
  // Every other one of them, from the end.
  const index_row wide_backwards =
      prospect::strided_span<const std::int64_t>{wide.data() + 2, 2, -2};
  CHECK(wide_backwards.size() == 2);
  CHECK(wide_backwards[0] == std::int64_t{1} << 40);
  CHECK(wide_backwards[1] == 5);
}

TEST_CASE("index rows that describe no memory say why", "[index_row]") {
  const std::vector<std::int64_t> row{1, 2, 3};
  const std::int64_t* const nowhere = nullptr;
  const auto odd =
      reinterpret_cast<const std::int32_t*>(reinterpret_cast<const char*>(row.data()) + 2);
  CHECK(index_row{row}.problem() == nullptr);
  CHECK(index_row{}.problem() == nullptr);
  CHECK(index_row{nowhere, 0}.problem() == nullptr);
  CHECK(index_row{nowhere, 3}.problem() != nullptr);
  CHECK(index_row{odd, 2}.problem() != nullptr);
  CHECK(index_row{row.data(), -1}.problem() != nullptr);
  CHECK(index_row{row.data(), 3, std::numeric_limits<std::int64_t>::max()}.problem() != nullptr);
}
