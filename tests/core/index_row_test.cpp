// Rows of indices of either width, from whatever holds them.

#include <prospect/core/index_row.hpp>

#include <cstdint>
#include <limits>
#include <span>
#include <type_traits>
#include <vector>

#include "catch.hpp"

using prospect::index_row;

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
  STATIC_REQUIRE_FALSE(std::is_convertible_v<std::vector<float>&, index_row>);
  STATIC_REQUIRE_FALSE(std::is_convertible_v<std::vector<std::int32_t>, index_row>);
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
