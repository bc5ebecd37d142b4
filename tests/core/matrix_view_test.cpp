// Matrices of logits: rows by pitch, and conversions in the safe direction only.

#include <prospect/core/matrix_view.hpp>

#include <cstdint>
#include <type_traits>
#include <vector>

#include "catch.hpp"

TEST_CASE("rows are a pitch apart", "[matrix_view]") {
  std::vector<float> data(20);
  const prospect::matrix_view<float> padded{data.data(), 4, 3, 5};
  CHECK(padded.row(3) == data.data() + 15);
  const prospect::matrix_view<float> tight{data.data(), 4, 5};
  CHECK(tight.pitch == 5);
  CHECK(prospect::matrix_view<float>{}.rows == 0);
}

TEST_CASE("row offsets are 64-bit", "[matrix_view]") {
  // Never dereferenced: 70,000 rows of 151,936 do not fit 32 bits.
  static char origin;
  const prospect::matrix_view<char> huge{&origin, 70'000, 151'936};
  const auto distance = reinterpret_cast<std::uintptr_t>(huge.row(69'999)) -
                        reinterpret_cast<std::uintptr_t>(&origin);
  CHECK(distance == std::uintptr_t{69'999} * 151'936);
}

TEST_CASE("a matrix converts to a matrix of const, never back", "[matrix_view]") {
  using matrix = prospect::matrix_view<float>;
  using const_matrix = prospect::matrix_view<const float>;
  STATIC_REQUIRE(std::is_convertible_v<matrix, const_matrix>);
  STATIC_REQUIRE_FALSE(std::is_convertible_v<const_matrix, matrix>);
  STATIC_REQUIRE_FALSE(std::is_convertible_v<prospect::matrix_view<double>, const_matrix>);
  STATIC_REQUIRE(std::is_trivially_copyable_v<matrix>);
}
