// Rows: what converts to them, how they step, and what they refuse at compile time.

#include <prospect/core/strided_span.hpp>

#include <array>
#include <cstdint>
#include <span>
#include <type_traits>
#include <vector>

#include "catch.hpp"

namespace {

using row = prospect::strided_span<float>;
using const_row = prospect::strided_span<const float>;

std::vector<float> made_row() { return {1, 2, 3.5F}; }

float total(const_row values) {
  float sum = 0;
  for (std::int64_t i = 0; i < values.size(); ++i) sum += values[i];
  return sum;
}

}  // namespace

TEST_CASE("rows step by their stride, forwards, backwards or not at all", "[strided_span]") {
  std::vector<float> data{0, 1, 2, 3, 4, 5, 6, 7};
  const row even{data.data(), 4, 2};
  CHECK(even[3] == 6);
  const row backwards{data.data() + 7, 8, -1};
  CHECK(backwards[0] == 7);
  CHECK(backwards[7] == 0);
  const const_row constant{data.data() + 3, 1000, 0};
  CHECK(constant[999] == 3);
  even[1] = 20;
  CHECK(data[2] == 20);
}

TEST_CASE("a slice keeps the stride", "[strided_span]") {
  std::vector<float> data{0, 1, 2, 3, 4, 5, 6, 7};
  const row tail = row{data.data() + 6, 4, -2}.slice(1, 2);
  CHECK(tail.size() == 2);
  CHECK(tail[0] == 4);
  CHECK(tail[1] == 2);
}

TEST_CASE("contiguous containers convert, in the safe direction", "[strided_span]") {
  std::vector<float> data{1, 2, 3};
  const row from_vector = data;
  const const_row from_const = std::as_const(data);
  const const_row from_span = std::span<const float>{data};
  std::array<float, 2> pair{4, 5};
  const row from_array = pair;
  CHECK(from_vector.data() == data.data());
  CHECK(from_vector.size() == 3);
  CHECK(from_vector.stride() == 1);
  CHECK(from_const.size() == 3);
  CHECK(from_span[2] == 3);
  CHECK(from_array[1] == 5);

  STATIC_REQUIRE(std::is_convertible_v<row, const_row>);
  STATIC_REQUIRE_FALSE(std::is_convertible_v<const_row, row>);
  STATIC_REQUIRE_FALSE(std::is_convertible_v<const std::vector<float>&, row>);
  STATIC_REQUIRE_FALSE(std::is_convertible_v<std::vector<double>&, const_row>);
  // A temporary lives as long as the call that reads it; nobody would see what is written to it.
  STATIC_REQUIRE(std::is_convertible_v<std::vector<float>, const_row>);
  STATIC_REQUIRE(std::is_convertible_v<const std::vector<float>, const_row>);
  STATIC_REQUIRE_FALSE(std::is_convertible_v<std::vector<float>, row>);
  STATIC_REQUIRE_FALSE(std::is_convertible_v<std::vector<double>, const_row>);
  STATIC_REQUIRE(std::is_trivially_copyable_v<row>);
}

TEST_CASE("a temporary is read within the call it is written in", "[strided_span]") {
  CHECK(total(made_row()) == 6.5F);
  CHECK(total(std::array<float, 2>{1, 2}) == 3);
}

TEST_CASE("a row that is not given is empty", "[strided_span]") {
  CHECK(row{}.empty());
  CHECK(row{}.size() == 0);
  std::vector<float> nothing;
  CHECK(row{nothing}.empty());
}
