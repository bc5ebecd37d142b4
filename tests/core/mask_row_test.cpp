// Masks of every type, from whatever holds them.

#include <prospect/core/mask_row.hpp>

#include <bit>
#include <cstdint>
#include <limits>
#include <span>
#include <type_traits>
#include <vector>

#include "catch.hpp"

using prospect::mask_row;
using prospect::strided_span;

TEST_CASE("what is not 0 is scored, whatever the mask is stored as", "[mask_row]") {
  const auto scored = [](const mask_row& mask) {
    std::vector<bool> all;
    for (std::int64_t i = 0; i < mask.size(); ++i) all.push_back(mask[i]);
    return all;
  };
  const std::vector<bool> want{false, true, true, false};
  std::vector<std::uint8_t> bytes{0, 1, 255, 0};
  const bool flags[] = {false, true, true, false};
  const std::vector<std::int32_t> whole{0, 1, std::numeric_limits<std::int32_t>::min(), 0};
  const std::vector<float> numbers{0, 0.5F, -1, -0.0F};
  CHECK(scored(bytes) == want);
  CHECK(scored(flags) == want);
  CHECK(scored(whole) == want);
  CHECK(scored(numbers) == want);
  CHECK(scored(std::span<const float>{numbers}) == want);
  CHECK(scored(strided_span<std::uint8_t>{bytes}) == want);
  CHECK(scored({whole.data(), 4}) == want);
  CHECK(scored({numbers.data() + 2, 2, -2}) == std::vector<bool>{true, false});
  CHECK(scored(strided_span<const bool>{flags + 1, 3, 0}) == std::vector<bool>{true, true, true});
  // A float by its bits: neither the smallest number nor NaN is 0.
  const std::vector<float> edges{
      std::numeric_limits<float>::denorm_min(), std::numeric_limits<float>::quiet_NaN(),
      std::numeric_limits<float>::infinity(), std::bit_cast<float>(0x80000001U)};
  CHECK(scored(edges) == std::vector<bool>(4, true));
}

TEST_CASE("no mask is empty, and what is none is refused", "[mask_row]") {
  CHECK(mask_row{}.empty());
  CHECK(mask_row{}.problem() == nullptr);
  const std::vector<float> row(4);
  const mask_row mask = row;
  CHECK_FALSE(mask.empty());
  CHECK(mask.problem() == nullptr);
  const float* const nowhere = nullptr;
  const auto* const bytes = reinterpret_cast<const std::uint8_t*>(row.data());
  CHECK(mask_row{nowhere, 4}.problem() != nullptr);
  CHECK(mask_row{reinterpret_cast<const std::int32_t*>(bytes + 1), 2}.problem() != nullptr);
  CHECK(mask_row{bytes + 1, 2}.problem() == nullptr);
  CHECK(mask_row{bytes, -2}.problem() != nullptr);
  CHECK(mask_row{bytes, 2, std::numeric_limits<std::int64_t>::max()}.problem() != nullptr);
  STATIC_REQUIRE_FALSE(std::is_convertible_v<std::vector<double>&, mask_row>);
  STATIC_REQUIRE_FALSE(std::is_convertible_v<std::vector<std::int64_t>&, mask_row>);
  STATIC_REQUIRE_FALSE(std::is_convertible_v<std::vector<bool>&, mask_row>);
  // Read only, so a temporary serves as well: it lives as long as the call.
  CHECK([](const mask_row& m) { return m[1]; }(std::vector<float>{0, 1}));
}
