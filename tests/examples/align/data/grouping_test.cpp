// What belongs together, and that no split tears it apart.
#include "data/grouping.hpp"

#include <algorithm>
#include <vector>

#include "catch.hpp"
#include "random_source.hpp"

using namespace align;

namespace {

using groups = std::vector<std::vector<std::size_t>>;

// Rows that are related to none of the first ones, so that a tenth of all is more than a few.
std::vector<row_texts> among_others(std::vector<row_texts> rows, std::size_t others = 60) {
  for (std::size_t i = 0; i < others; ++i) {
    rows.push_back({"other " + std::to_string(i), {"text " + std::to_string(i)}});
  }
  return rows;
}

// The groups of the first rows.
groups first_groups(const std::vector<row_texts>& rows, std::size_t count) {
  groups found = related_rows(rows);
  std::erase_if(found, [&](const auto& group) { return group.front() >= count; });
  return found;
}

}  // namespace

TEST_CASE("the same prompt or the same text makes a group, and groups chain") {
  const auto rows =
      among_others({{"p", {"a"}}, {"q", {"b"}}, {"p", {"c"}}, {"r", {"c"}}, {"s", {"d"}}});
  CHECK(first_groups(rows, 5) == groups{{0, 2, 3}, {1}, {4}});
}

TEST_CASE("both answers of a pair count, on either side") {
  const auto rows = among_others({{"p", {"a", "b"}}, {"q", {"c", "a"}}, {"r", {"d", "e"}}});
  CHECK(first_groups(rows, 3) == groups{{0, 1}, {2}});
}

TEST_CASE("case, blanks and marks make no other text") {
  const auto rows =
      among_others({{"p", {"Good  film.\n"}}, {"q", {" good film!"}}, {"r", {"goodfilm."}}});
  CHECK(first_groups(rows, 3) == groups{{0, 1}, {2}});
}

TEST_CASE("a common prompt makes no group, but a copy of a row does") {
  std::vector<row_texts> rows(30, {"Write a review", {""}});
  for (std::size_t i = 0; i < rows.size(); ++i) rows[i].answers = {"text " + std::to_string(i / 2)};
  const groups found = related_rows(rows);
  CHECK(found.size() == 15);
  CHECK(std::ranges::all_of(found, [](const auto& group) { return group.size() == 2; }));
}

TEST_CASE("a stock answer makes no group") {
  std::vector<row_texts> rows;
  for (std::size_t i = 0; i < 40; ++i)
    rows.push_back({"question " + std::to_string(i), {i % 2 == 0 ? "Yes" : "No"}});
  CHECK(related_rows(rows).size() == 40);
}

TEST_CASE("a split takes whole groups, about a fifth of the rows, and every row once") {
  random_source random{3};
  groups all;
  std::size_t rows = 0;
  while (rows < 1000) {
    all.emplace_back();
    for (std::size_t size = 1 + random.below(20); size-- > 0;) all.back().push_back(rows++);
  }
  const row_split parts = split_groups(all, 1);
  CHECK(parts.held_out.size() <= rows / 5 + 1);
  CHECK(parts.held_out.size() >= rows / 5 - 2);
  std::vector<char> held(rows, 0);
  for (const std::size_t i : parts.held_out) held[i] = 1;
  for (const auto& group : all) {
    REQUIRE(std::ranges::all_of(group, [&](std::size_t i) { return held[i] == held[group[0]]; }));
  }
  std::vector<std::size_t> both = parts.train;
  both.insert(both.end(), parts.held_out.begin(), parts.held_out.end());
  std::ranges::sort(both);
  REQUIRE(both.size() == rows);
  for (std::size_t i = 0; i < rows; ++i) REQUIRE(both[i] == i);
  CHECK(split_groups(all, 1).train == parts.train);
  CHECK(split_groups(all, 2).train != parts.train);
}

TEST_CASE("where every group is too large, the smallest is held out") {
  const row_split parts = split_groups({{0, 1, 2}, {3, 4}}, 1);
  CHECK(parts.held_out == std::vector<std::size_t>{3, 4});
  CHECK(split_groups({{0, 1, 2}}, 1).held_out.empty());
  CHECK(split_groups({}, 1).train.empty());
}
