// Padded and packed batches and ranges as one thing.

#include <prospect/layout.hpp>

#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "catch.hpp"

using prospect::index_row;
using prospect::sequence_layout;

namespace {

std::string_view problem(const sequence_layout& layout, std::int64_t rows) {
  const char* why = layout.problem(rows);
  return why == nullptr ? "" : why;
}

constexpr std::int64_t most = std::numeric_limits<std::int64_t>::max();

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
  const std::vector<std::int32_t> last{0, 5, 3};
  CHECK(problem(sequence_layout::packed(last), 3) == "has decreasing offsets");
  CHECK(problem(sequence_layout::padded(most, most), 1) != "");
  CHECK(problem(sequence_layout::padded(std::int64_t{1} << 62, 4), 0) != "");
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
  constexpr std::int64_t largest = std::numeric_limits<std::int64_t>::max();
  CHECK(problem(sequence_layout::padded(std::int64_t{1} << 62, 4), 0) != "");
  CHECK(problem(sequence_layout::padded(4, std::int64_t{1} << 62), 0) != "");
  CHECK(problem(sequence_layout::padded(largest, largest), 1) != "");
  CHECK(problem(sequence_layout::padded(1, largest), largest) == "");
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

TEST_CASE("ranges ascend, share no row and lie inside the batch", "[layout]") {
  const auto why = [](const std::vector<std::int64_t>& begins,
                      const std::vector<std::int64_t>& ends, std::int64_t rows) {
    return std::string{problem(sequence_layout::ranges(begins, ends), rows)};
  };
  CHECK(why({}, {}, 0).empty());
  CHECK(why({}, {}, 9).empty());
  CHECK(why({0}, {9}, 9).empty());
  CHECK(why({2, 5, 5}, {5, 5, 8}, 9).empty());
  CHECK(why({0, 4}, {5, 8}, 9) != "");
  CHECK(why({4, 0}, {8, 4}, 9) != "");
  CHECK(why({-1}, {3}, 9) != "");
  CHECK(why({2, 5}, {5, 4}, 9) != "");
  CHECK(why({2, 5}, {5, 10}, 9) != "");
  CHECK(why({2}, {5, 6}, 9) != "");
  CHECK(why({2, 5}, {5}, 9) != "");
  CHECK(why({std::numeric_limits<std::int64_t>::min()}, {most}, 9) != "");

  const std::vector<std::int32_t> begins{2, 6}, ends{5, 9};
  const auto layout = sequence_layout::ranges(begins, ends);
  CHECK(layout.sequences() == 2);
  CHECK(layout.begin(1) == 6);
  CHECK(layout.end(0) == 5);
  CHECK(layout.gap(0) == 0);
  CHECK(layout.gap(1) == 5);
  CHECK(layout.gap(2) == 9);
  CHECK(sequence_layout::padded(3, 4).gap(2) == 8);
}

TEST_CASE("what shows of a layout without a look at its offsets", "[layout]") {
  const std::vector<std::int32_t> wrong{7, 3};
  const std::int32_t* const nowhere = nullptr;
  const auto misaligned =
      reinterpret_cast<const std::int64_t*>(reinterpret_cast<const char*>(wrong.data()) + 1);
  const auto shape = [](const sequence_layout& layout, std::int64_t rows) {
    return layout.shape_problem(rows) == nullptr;
  };
  CHECK(shape(sequence_layout::packed(wrong), 3));
  CHECK(shape(sequence_layout::ranges(wrong, wrong), 3));
  CHECK_FALSE(shape(sequence_layout::packed({nowhere, 3}), 3));
  CHECK_FALSE(shape(sequence_layout::packed({misaligned, 2}), 3));
  CHECK_FALSE(shape(sequence_layout::packed({wrong.data(), 2, most}), 3));
  CHECK_FALSE(shape(sequence_layout::packed({wrong.data(), -2}), 3));
  CHECK_FALSE(shape(sequence_layout::ranges(wrong, {nowhere, 2}), 3));
  CHECK_FALSE(shape(sequence_layout::ranges(wrong, index_row{}), 3));
  CHECK_FALSE(shape(sequence_layout::padded(2, 2), 3));
  CHECK(sequence_layout::padded(2, 2).padded());
  CHECK_FALSE(sequence_layout::packed(wrong).padded());
  CHECK_FALSE(sequence_layout::ranges({}, {}).padded());
}
