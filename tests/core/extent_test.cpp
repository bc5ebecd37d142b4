// What makes rows and matrices no description of memory: every reason, at the number where it
// begins. Nothing is read, so the addresses may be anything.

#include <prospect/core/extent.hpp>

#include <cstdint>
#include <limits>
#include <string_view>

#include "catch.hpp"

namespace {

using prospect::detail::most_bytes;
using prospect::detail::product;
using prospect::detail::view_problem;

constexpr std::int64_t most = std::numeric_limits<std::int64_t>::max();
constexpr std::int64_t least = std::numeric_limits<std::int64_t>::min();

alignas(8) const double somewhere[2]{};

std::string_view row_problem(const void* data, std::int64_t size, std::int64_t stride = 1) {
  const char* why = view_problem(
      prospect::strided_span<const double>{static_cast<const double*>(data), size, stride});
  return why == nullptr ? "" : why;
}

std::string_view matrix(const void* data, std::int64_t rows, std::int64_t columns,
                        std::int64_t pitch) {
  const char* why = view_problem(
      prospect::matrix_view<const double>{static_cast<const double*>(data), rows, columns, pitch});
  return why == nullptr ? "" : why;
}

const void* misaligned(int by) { return reinterpret_cast<const char*>(somewhere) + by; }

constexpr std::string_view too_large_row = "is larger than any memory: check its size and stride";
constexpr std::string_view too_large = "is larger than any memory: check its sizes and pitch";

}  // namespace

TEST_CASE("a product says what it is, or that no memory is as large", "[extent]") {
  CHECK(product(0, most) == 0);
  CHECK(product(-3, 8) == -24);
  CHECK(product(most_bytes / 8, 8) == most_bytes);
  CHECK(product(-(most_bytes / 8), 8) == -most_bytes);
  for (const std::int64_t large : {most_bytes / 8 + 1, most / 8, most / 2 + 1, most, least}) {
    CAPTURE(large);
    CHECK(product(large, 8) == most_bytes + 1);
    CHECK(product(8, large) == most_bytes + 1);
  }
  // 2^32 x 2^32 and 2^62 x 4 are 0 in 64 bits.
  CHECK(product(std::int64_t{1} << 32, std::int64_t{1} << 32) == most_bytes + 1);
  CHECK(product(std::int64_t{1} << 62, 4) == most_bytes + 1);
}

TEST_CASE("a row's size, stride and address are each looked at", "[extent]") {
  CHECK(row_problem(somewhere, 1) == "");
  CHECK(row_problem(nullptr, 0) == "");
  CHECK(row_problem(misaligned(4), 0) == "");  // not there, wherever it is
  CHECK(row_problem(somewhere, -1) == "has a negative size");
  CHECK(row_problem(somewhere, least) == "has a negative size");
  CHECK(row_problem(nullptr, 1) == "has no data");
  for (const int by : {1, 2, 4, 7}) {
    CHECK(row_problem(misaligned(by), 1) == "is not aligned to its elements");
  }
}

TEST_CASE("a row reaches as far as memory does and no further", "[extent]") {
  constexpr std::int64_t fits = most_bytes / 8;
  CHECK(row_problem(somewhere, fits) == "");
  CHECK(row_problem(somewhere, fits + 1) == too_large_row);
  CHECK(row_problem(somewhere, fits, 0) == "");  // however often one element is repeated
  CHECK(row_problem(somewhere, fits + 1, 0) == too_large_row);
  CHECK(row_problem(somewhere, most / 2, 0) == too_large_row);
  CHECK(row_problem(somewhere, most) == too_large_row);
  // The last of three lies two strides behind the first.
  CHECK(row_problem(somewhere, 3, fits / 2) == "");
  CHECK(row_problem(somewhere, 3, -(fits / 2)) == "");
  CHECK(row_problem(somewhere, 3, fits / 2 + 1) == too_large_row);
  CHECK(row_problem(somewhere, 3, -(fits / 2) - 1) == too_large_row);
  CHECK(row_problem(somewhere, 2, std::int64_t{1} << 62) == too_large_row);
  CHECK(row_problem(somewhere, 2, most) == too_large_row);
  CHECK(row_problem(somewhere, 2, least) == too_large_row);
}

TEST_CASE("a matrix's sizes, pitch and address are each looked at", "[extent]") {
  CHECK(matrix(somewhere, 1, 1, 1) == "");
  CHECK(matrix(somewhere, 2, 3, 3) == "");
  CHECK(matrix(somewhere, 2, 3, 5) == "");
  CHECK(matrix(somewhere, 2, 3, 2) == "has a pitch smaller than its columns");
  CHECK(matrix(somewhere, 1, 77, 1) == "");  // one row has no pitch
  CHECK(matrix(somewhere, 1, 77, -5) == "");
  CHECK(matrix(somewhere, -1, 3, 3) == "has a negative size");
  CHECK(matrix(somewhere, 3, -1, 3) == "has a negative size");
  CHECK(matrix(nullptr, 0, 3, 3) == "");
  CHECK(matrix(nullptr, 3, 0, 0) == "");
  CHECK(matrix(nullptr, 1, 1, 1) == "has no data");
  CHECK(matrix(misaligned(4), 1, 1, 1) == "is not aligned to its elements");
}

TEST_CASE("a matrix reaches as far as memory does and no further", "[extent]") {
  constexpr std::int64_t fits = most_bytes / 8;
  CHECK(matrix(somewhere, 4, 5, fits / 4) == "");
  CHECK(matrix(somewhere, 4, 5, fits / 4 + 1) == too_large);
  CHECK(matrix(somewhere, 1, fits, fits) == "");
  CHECK(matrix(somewhere, 1, fits + 1, fits + 1) == too_large);
  CHECK(matrix(somewhere, fits + 1, 0, 0) == too_large);
  CHECK(matrix(somewhere, 2, 3, (std::int64_t{1} << 46) + 3) == too_large);
  CHECK(matrix(somewhere, 2, 3, most) == too_large);
  CHECK(matrix(somewhere, std::int64_t{1} << 62, 4, 4) == too_large);
  CHECK(matrix(somewhere, 0, most, most) == too_large);
}
