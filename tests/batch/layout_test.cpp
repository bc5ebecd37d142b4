// Padded and packed batches as one thing, and index rows of either width.

#include <prospect/layout.hpp>

#include <cstdint>
#include <limits>
#include <span>
#include <string_view>
#include <type_traits>
#include <vector>

#include "catch.hpp"

using prospect::index_row;
using prospect::sequence_layout;

namespace {

std::string_view problem(const sequence_layout& layout, std::int64_t rows) {
  const char* why = layout.problem(rows);
  return why == nullptr ? "" : why;
}

}  // namespace

TEST_CASE("padded and packed layouts name the same rows", "[layout]") {
  const std::vector<std::int32_t> narrow{0, 4, 8, 12};
  const std::vector<std::int64_t> wide{0, 4, 8, 12};
  const auto padded = sequence_layout::padded(3, 4);
  for (const auto& layout : {sequence_layout::packed(narrow), sequence_layout::packed(wide)}) {
    CHECK(layout.sequences() == 3);
    for (std::int64_t i = 0; i < 3; ++i) {
      CHECK(layout.begin(i) == padded.begin(i));
      CHECK(layout.end(i) == padded.end(i));
    }
    CHECK(layout.problem(12) == nullptr);
  }
  CHECK(padded.problem(12) == nullptr);
}

TEST_CASE("sequences may be empty, and so may batches", "[layout]") {
  const std::vector<std::int32_t> offsets{0, 0, 5, 5};
  const auto layout = sequence_layout::packed(offsets);
  CHECK(layout.problem(5) == nullptr);
  CHECK(layout.begin(0) == layout.end(0));
  CHECK(layout.begin(2) == layout.end(2));
  CHECK(sequence_layout::padded(0, 7).problem(0) == nullptr);
  CHECK(sequence_layout::padded(7, 0).problem(0) == nullptr);
  const std::vector<std::int64_t> none{0};
  CHECK(sequence_layout::packed(none).sequences() == 0);
  CHECK(sequence_layout::packed(none).problem(0) == nullptr);
  CHECK(sequence_layout::packed(index_row{}).sequences() == 0);
}

TEST_CASE("a layout that does not cover its rows says why", "[layout]") {
  const std::vector<std::int32_t> late{1, 4}, falling{0, 5, 3, 6}, early{0, 2, 4};
  CHECK(problem(sequence_layout::packed(late), 4) == "does not start at row 0");
  CHECK(problem(sequence_layout::packed(falling), 6) == "has decreasing offsets");
  CHECK(problem(sequence_layout::packed(early), 5) == "does not end at the last row");
  CHECK(problem(sequence_layout::padded(3, 4), 13) != "");
  CHECK(problem(sequence_layout::padded(4, 4), 12) != "");
  CHECK(problem(sequence_layout::padded(-1, 4), 0) == "has a negative size");
  CHECK(problem(sequence_layout::padded(-1, -4), 4) == "has a negative size");
  const std::vector<std::int64_t> negative{0, -3, 2};
  CHECK(problem(sequence_layout::packed(negative), 2) == "has decreasing offsets");
}

TEST_CASE("the last sequence and the smallest layouts are looked at as well", "[layout]") {
  const std::vector<std::int32_t> last_falls{0, 5, 3}, only_falls{0, -1}, one{0, 3}, alone{1};
  CHECK(problem(sequence_layout::packed(last_falls), 3) == "has decreasing offsets");
  CHECK(problem(sequence_layout::packed(last_falls), 5) == "has decreasing offsets");
  CHECK(problem(sequence_layout::packed(only_falls), -1) == "has decreasing offsets");
  CHECK(problem(sequence_layout::packed(one), 3) == "");
  CHECK(problem(sequence_layout::packed(one), 2) == "does not end at the last row");
  CHECK(problem(sequence_layout::packed(one), 4) == "does not end at the last row");
  CHECK(problem(sequence_layout::packed(alone), 1) == "does not start at row 0");
  CHECK(problem(sequence_layout::padded(1, 3), 3) == "");
  CHECK(problem(sequence_layout::padded(0, 0), 0) == "");
  // No rows to a sequence cover no rows, and no sequences neither.
  for (const std::int64_t rows : {1, 7}) {
    CHECK(problem(sequence_layout::padded(7, 0), rows) != "");
    CHECK(problem(sequence_layout::padded(0, 7), rows) != "");
    CHECK(problem(sequence_layout{}, rows) != "");
  }
  CHECK(sequence_layout::padded(1, 3).padded());
  CHECK(sequence_layout{}.padded());
  CHECK_FALSE(sequence_layout::packed(one).padded());
}

TEST_CASE("no product of a layout's numbers wraps into the number of rows", "[layout]") {
  constexpr std::int64_t most = std::numeric_limits<std::int64_t>::max();
  CHECK(problem(sequence_layout::padded(std::int64_t{1} << 62, 4), 0) != "");
  CHECK(problem(sequence_layout::padded(4, std::int64_t{1} << 62), 0) != "");
  CHECK(problem(sequence_layout::padded(most, most), 1) != "");
  CHECK(problem(sequence_layout::padded(1, most), most) == "");
}

TEST_CASE("layouts count in 64 bits", "[layout]") {
  const auto layout = sequence_layout::padded(100'000, 50'000);
  CHECK(layout.begin(99'999) == 4'999'950'000);
  CHECK(layout.problem(5'000'000'000) == nullptr);
  const std::vector<std::int64_t> far{0, 3'000'000'000, 5'000'000'000};
  const auto packed = sequence_layout::packed(far);
  CHECK(packed.begin(1) == 3'000'000'000);
  CHECK(packed.end(1) == 5'000'000'000);
  CHECK(packed.problem(5'000'000'000) == nullptr);
}

TEST_CASE("index rows read int32 and int64 from any view of them", "[layout]") {
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
  CHECK(from_wide.size() == 3);
  // Every other one of them, from the end.
  const index_row wide_backwards =
      prospect::strided_span<const std::int64_t>{wide.data() + 2, 2, -2};
  CHECK(wide_backwards.size() == 2);
  CHECK(wide_backwards[0] == std::int64_t{1} << 40);
  CHECK(wide_backwards[1] == 5);
  STATIC_REQUIRE_FALSE(std::is_convertible_v<std::vector<float>&, index_row>);
  // Indices are read only, so a temporary serves as well: it lives as long as the call.
  STATIC_REQUIRE(std::is_convertible_v<std::vector<std::int32_t>, index_row>);
  CHECK([](const index_row& row) { return row[1]; }(std::vector<std::int32_t>{5, 6}) == 6);
}
