// Rows that know their own storage type: what they are made from, what they are never made from,
// and that a number is rounded once on its way in.

#include <prospect/any_row.hpp>

#include <array>
#include <bit>
#include <cmath>
#include <concepts>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "catch.hpp"
#include "random.hpp"

using prospect::any_row;
using prospect::bfloat16;
using prospect::const_any_row;
using prospect::dtype;
using prospect::float16;
using prospect::strided_span;

static_assert(std::convertible_to<std::vector<float>, const_any_row>);  // of a call's arguments
static_assert(std::convertible_to<const std::vector<double>&, const_any_row>);
static_assert(std::convertible_to<std::span<const float16>, const_any_row>);
static_assert(std::convertible_to<strided_span<bfloat16>, const_any_row>);
static_assert(!std::convertible_to<std::vector<int>, const_any_row>);
static_assert(!std::convertible_to<const std::vector<float>&, any_row>);
static_assert(!std::convertible_to<std::vector<float>, any_row>);  // its results would be gone
static_assert(!std::convertible_to<strided_span<const float>, any_row>);
static_assert(!std::convertible_to<std::span<const double>, any_row>);
static_assert(!std::convertible_to<const_any_row, any_row>);
static_assert(std::convertible_to<std::span<float>, any_row>);
static_assert(std::convertible_to<std::vector<float16>&, any_row>);

TEMPLATE_TEST_CASE("a row of any type is what it was made from", "[any_row]", float, double,
                   float16, bfloat16) {
  using S = TestType;
  std::vector<S> data(7, S(0));
  const const_any_row whole{data};
  CHECK(whole.data() == data.data());
  CHECK(whole.size() == 7);
  CHECK(whole.stride() == 1);
  CHECK(whole.type() == prospect::dtype_of<S>);
  CHECK(prospect::bytes_of(whole.type()) == sizeof(S));

  const any_row backwards{strided_span<S>{data.data() + 6, 4, -2}};
  for (const std::int64_t i : {0, 1, 2, 3})
    CHECK(backwards.put(i, float(i) + 0.5F) == float(i) + 0.5F);
  const const_any_row again{data.data() + 6, 4, -2};
  for (const std::int64_t i : {0, 1, 2, 3}) {
    CHECK(again.get<double>(i) == static_cast<double>(i) + 0.5);
    CHECK(again.get<float>(i) == static_cast<float>(i) + 0.5F);
    CHECK(prospect::load(data[static_cast<std::size_t>(6 - 2 * i)]) == float(i) + 0.5F);
  }
  CHECK(prospect::load(data[1]) == 0);
  CHECK(const_any_row{}.empty());
  CHECK(any_row{}.empty());
}

TEST_CASE("the types have the numbers of the C API", "[any_row]") {
  CHECK(static_cast<int>(dtype::f32) == 0);
  CHECK(static_cast<int>(dtype::f64) == 1);
  CHECK(static_cast<int>(dtype::f16) == 2);
  CHECK(static_cast<int>(dtype::bf16) == 3);
}

TEST_CASE("fp64 is rounded once to 16 bits, not by way of fp32", "[any_row]") {
  std::array<bfloat16, 1> narrow{};
  std::array<float16, 1> half{};
  // Halfway between two neighbours and a little more, which fp32 has no room for: rounded twice,
  // the tie would go down to the even neighbour.
  CHECK(any_row{narrow}.put(0, 1 + 0x1p-8 + 0x1p-40) == 1 + 0x1p-7);
  CHECK(any_row{narrow}.put(0, -(1 + 0x1p-8 + 0x1p-40)) == -(1 + 0x1p-7));
  CHECK(any_row{half}.put(0, 1 + 0x1p-11 + 0x1p-40) == 1 + 0x1p-10);
  // A little less: rounded twice, the tie would go up.
  CHECK(any_row{narrow}.put(0, 1 + 3 * 0x1p-8 - 0x1p-40) == 1 + 0x1p-7);
  CHECK(any_row{half}.put(0, 1 + 3 * 0x1p-11 - 0x1p-40) == 1 + 0x1p-10);
  CHECK(any_row{half}.put(0, 0x1p-25 + 0x1p-60) == 0x1p-24);  // subnormal
  CHECK(any_row{half}.put(0, 65519.9999999) == 65504);
  CHECK(std::isinf(any_row{half}.put(0, 65520.0)));
  CHECK(std::isinf(any_row{narrow}.put(0, 1e300)));
  CHECK(std::isnan(any_row{narrow}.put(0, std::nan(""))));
  CHECK(any_row{narrow}.put(0, -0.0) == 0);
  CHECK(std::signbit(any_row{narrow}.put(0, -0.0)));

  testing::random_source random{91};
  CAPTURE(random.seed());
  for (int i = 0; i < 20000; ++i) {
    const double x = std::ldexp(random.normal(1), static_cast<int>(random.integer(-20, 20)));
    const double got = any_row{narrow}.put(0, x);
    const double up =
        static_cast<float>(std::bit_cast<bfloat16>(static_cast<std::uint16_t>(narrow[0].bits + 1)));
    const double down =
        static_cast<float>(std::bit_cast<bfloat16>(static_cast<std::uint16_t>(narrow[0].bits - 1)));
    CHECK((std::abs(x - got) <= std::abs(x - up) && std::abs(x - got) <= std::abs(x - down)));
  }
}

TEST_CASE("a row that describes no memory says why", "[any_row]") {
  using prospect::detail::view_problem;
  std::vector<double> data(4);
  const auto why = [](const const_any_row& row) {
    const char* const problem = view_problem(row);
    return std::string{problem == nullptr ? "" : problem};
  };
  auto* const bytes = reinterpret_cast<char*>(data.data());
  CHECK(why(data).empty());
  CHECK(why({bytes + 4, dtype::f32, 3}).empty());
  CHECK(why({bytes + 4, dtype::f64, 3}).find("aligned") != std::string::npos);
  CHECK(why({bytes + 2, dtype::f32, 3}).find("aligned") != std::string::npos);
  CHECK(why({bytes + 2, dtype::f16, 3}).empty());
  CHECK(why({bytes + 1, dtype::bf16, 3}).find("aligned") != std::string::npos);
  CHECK(why({nullptr, dtype::f32, 3}).find("no data") != std::string::npos);
  CHECK(why({nullptr, dtype::f32, 0}).empty());
  CHECK(why({data.data(), dtype::f64, -1}).find("negative") != std::string::npos);
  constexpr std::int64_t most = std::numeric_limits<std::int64_t>::max();
  for (const std::int64_t stride : {std::int64_t{0}, std::int64_t{1}, most, -most - 1}) {
    CAPTURE(stride);
    CHECK(why({data.data(), dtype::f64, most / 2, stride}).find("memory") != std::string::npos);
  }
  for (const std::int64_t stride : {most, std::int64_t{1} << 62, -most, -most - 1}) {
    CAPTURE(stride);
    CHECK(why({data.data(), dtype::f32, 2, stride}).find("memory") != std::string::npos);
  }
  CHECK(view_problem(any_row{nullptr, dtype::f32, 1}) != nullptr);
}
