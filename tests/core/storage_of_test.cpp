// Rows and matrices of other people's 16-bit types, taken as they lie: a host's own, and what the
// compiler and the standard library have.

#include <prospect/any_row.hpp>
#include <prospect/core/matrix_view.hpp>
#include <prospect/core/storage_of.hpp>
#include <prospect/core/strided_span.hpp>

#include <algorithm>
#include <array>
#include <cstdint>
#include <span>
#include <type_traits>
#include <vector>

#if __has_include(<stdfloat>) && __cplusplus > 202002L
#include <stdfloat>
#endif

#include "catch.hpp"

namespace host {

struct half {
  std::uint16_t x;
};
struct brain {
  unsigned short raw;
};
struct unknown {
  std::uint16_t x;
};

}  // namespace host

template <>
struct prospect::storage_of<host::half> {
  using type = prospect::float16;
};
template <>
struct prospect::storage_of<host::brain> {
  using type = prospect::bfloat16;
};

namespace {

using prospect::bfloat16;
using prospect::float16;
using prospect::matrix_view;
using prospect::strided_span;

/// What a host and the library do by turns to the same memory. A compiler that took their types for
/// different memory would let each read what stood there before.
[[gnu::noinline]] float by_turns(host::half* mine, strided_span<float16> theirs) {
  mine[0].x = 0x3c00;  // 1
  const auto first = static_cast<float>(theirs[0]);
  theirs[0] = float16(4.0F);
  const std::uint16_t seen = mine[0].x;
  mine[0] = host::half{0x4000};  // 2
  const float16 copy = theirs[0];
  return 100 * first + (seen == 0x4400 ? 10.0F : 0.0F) + static_cast<float>(copy);
}
[[gnu::noinline]] float raw_by_turns(host::brain* mine, strided_span<bfloat16> theirs) {
  mine[0].raw = 0x3f80;  // 1
  const auto first = static_cast<float>(theirs[0]);
  theirs[0] = bfloat16(4.0F);
  const unsigned short seen = mine[0].raw;
  mine[0] = host::brain{0x4000};  // 2
  const bfloat16 copy = theirs[0];
  return 100 * first + (seen == 0x4080 ? 10.0F : 0.0F) + static_cast<float>(copy);
}

template <class From, class To>
constexpr bool converts = std::is_convertible_v<From, To>;

}  // namespace

TEST_CASE("a row of a host's 16-bit type is a row of ours", "[storage_of]") {
  std::vector<host::half> row{{0x3c00}, {0x4000}, {0x4200}};
  const strided_span<const float16> read = row;
  REQUIRE(read.size() == 3);
  CHECK(static_cast<const void*>(read.data()) == row.data());
  CHECK(static_cast<float>(read[2]) == 3);

  const strided_span<float16> written = row;
  written[1] = float16(-2.0F);
  CHECK(row[1].x == 0xc000);

  const std::vector<host::half>& constant = row;
  CHECK(static_cast<float>(strided_span<const float16>{constant}[0]) == 1);
  CHECK(static_cast<float>(strided_span<const float16>{row.data(), 2, 2}[1]) == 3);
  CHECK(static_cast<float>(strided_span<float16>{row.data(), 3}[2]) == 3);
  CHECK(static_cast<float>(strided_span<const float16>{std::span{row}}[2]) == 3);
  const strided_span<host::half> viewed{row.data() + 2, 3, -1};
  CHECK(static_cast<float>(strided_span<const float16>{viewed}[2]) == 1);
  CHECK(strided_span<const float16>{viewed}.stride() == -1);
}

TEST_CASE("a matrix of a host's 16-bit type is a matrix of ours", "[storage_of]") {
  std::array<host::brain, 6> data{{{0x3f80}, {0x4000}, {0}, {0x4040}, {0x4080}, {0}}};
  const matrix_view<const bfloat16> read{data.data(), 2, 2, 3};
  CHECK(static_cast<float>(read.row(1)[1]) == 4);
  const matrix_view<bfloat16> compact{data.data(), 3, 2};
  compact.row(2)[0] = bfloat16(8.0F);
  CHECK(data[4].raw == 0x4100);
  const matrix_view<host::brain> viewed{data.data(), 2, 2, 3};
  CHECK(matrix_view<const bfloat16>{viewed}.pitch == 3);
  CHECK(static_cast<const void*>(matrix_view<bfloat16>{viewed}.row(1)) == &data[3]);
}

TEST_CASE("a row of a type known at run time takes them too", "[storage_of]") {
  std::vector<host::half> row{{0x3c00}, {0x4000}};
  const prospect::const_any_row read = row;
  CHECK(read.type() == prospect::dtype::f16);
  CHECK(read.get<float>(1) == 2);
  const prospect::any_row written = row;
  CHECK(written.put(0, 5.0) == 5);
  CHECK(row[0].x == 0x4500);
  std::array<host::brain, 2> brain{{{0x4040}, {0}}};
  CHECK(prospect::const_any_row{brain.data(), 2}.type() == prospect::dtype::bf16);
  CHECK(prospect::any_row{brain.data(), 2}.type() == prospect::dtype::bf16);
}

TEST_CASE("what is const stays const, and what is something else stays out", "[storage_of]") {
  STATIC_REQUIRE(converts<std::vector<host::half>&, strided_span<float16>>);
  STATIC_REQUIRE(converts<const std::vector<host::half>&, strided_span<const float16>>);
  STATIC_REQUIRE_FALSE(converts<const std::vector<host::half>&, strided_span<float16>>);
  STATIC_REQUIRE_FALSE(converts<strided_span<const host::half>, strided_span<float16>>);
  STATIC_REQUIRE_FALSE(converts<matrix_view<const host::half>, matrix_view<float16>>);
  STATIC_REQUIRE_FALSE(std::is_constructible_v<matrix_view<float16>, const host::half*, int, int>);
  STATIC_REQUIRE_FALSE(std::is_constructible_v<strided_span<float16>, const host::half*, int>);
  STATIC_REQUIRE_FALSE(converts<const std::vector<host::half>&, prospect::any_row>);
  // Half is not brain, and none is a float.
  STATIC_REQUIRE_FALSE(converts<std::vector<host::half>&, strided_span<bfloat16>>);
  STATIC_REQUIRE_FALSE(converts<std::vector<host::brain>&, strided_span<const float16>>);
  STATIC_REQUIRE_FALSE(converts<std::vector<host::half>&, strided_span<const float>>);
  STATIC_REQUIRE_FALSE(converts<std::vector<host::unknown>&, strided_span<const float16>>);
  STATIC_REQUIRE_FALSE(converts<std::vector<std::uint16_t>&, strided_span<const float16>>);
  STATIC_REQUIRE_FALSE(converts<std::vector<float16>&, strided_span<const bfloat16>>);
  // No way back: a row of ours is not one of a host's.
  STATIC_REQUIRE_FALSE(converts<std::vector<float16>&, strided_span<host::half>>);
}

TEST_CASE("neither side reads what the other has overwritten", "[storage_of]") {
  std::vector<host::half> half(1);
  CHECK(by_turns(half.data(), half) == 112);
  std::vector<host::brain> brain(1);
  CHECK(raw_by_turns(brain.data(), brain) == 112);
}

#if defined(__STDCPP_FLOAT16_T__)
TEST_CASE("a row of std::float16_t is a row of float16", "[storage_of]") {
  std::vector<std::float16_t> row{1.5F16, -2.0F16};
  CHECK(static_cast<float>(strided_span<const float16>{row}[0]) == 1.5F);
  strided_span<float16>{row}[1] = float16(4.0F);
  CHECK(static_cast<float>(row[1]) == 4);
}
#endif

#if defined(__STDCPP_BFLOAT16_T__)
TEST_CASE("a row of std::bfloat16_t is a row of bfloat16", "[storage_of]") {
  std::vector<std::bfloat16_t> row{1.5BF16, -2.0BF16};
  CHECK(static_cast<float>(strided_span<const bfloat16>{row}[0]) == 1.5F);
  strided_span<bfloat16>{row}[1] = bfloat16(4.0F);
  CHECK(static_cast<float>(row[1]) == 4);
}
#endif
