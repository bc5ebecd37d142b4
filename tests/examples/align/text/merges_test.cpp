// Merging: short words and long ones the same, in time that grows little faster than the word.
#include "text/merges.hpp"

#include <array>
#include <random>

#include "catch.hpp"

using namespace align;

namespace {

// By definition: the most urgent pair, of equals the leftmost, until there is none.
std::vector<token> merged_slowly(std::vector<token> word,
                                 const std::vector<std::array<token, 3>>& merges) {
  for (bool changed = true; changed;) {
    changed = false;
    for (const auto& [left, right, result] : merges) {
      for (std::size_t i = 0; i + 1 < word.size() && !changed; ++i) {
        if (word[i] != left || word[i + 1] != right) continue;
        word[i] = result;
        word.erase(word.begin() + static_cast<std::ptrdiff_t>(i) + 1);
        changed = true;
      }
      if (changed) break;
    }
  }
  return word;
}

}  // namespace

TEST_CASE("random words merge as they should by definition") {
  std::mt19937 engine(7);
  const auto below = [&](std::size_t n) { return static_cast<token>(engine() % n); };
  for (int round = 0; round < 60; ++round) {
    merge_table table;
    std::vector<std::array<token, 3>> merges;
    token tokens = 3;
    while (merges.size() < 12) {
      const token left = below(static_cast<std::size_t>(tokens));
      const token right = below(static_cast<std::size_t>(tokens));
      if (!table.add(left, right, tokens)) continue;
      merges.push_back({left, right, tokens++});
    }
    for (const std::size_t size : {0U, 1U, 2U, 5U, 31U, 32U, 33U, 100U}) {
      std::vector<token> word(size);
      for (token& t : word) t = below(3);
      const std::vector<token> expected = merged_slowly(word, merges);
      table.apply(word);
      CHECK(word == expected);
    }
  }
}

TEST_CASE("a pair is added once") {
  merge_table table;
  CHECK(table.add(1, 2, 3));
  CHECK_FALSE(table.add(1, 2, 4));
  CHECK(table.add(2, 1, 5));
}

TEST_CASE("a word of a million tokens takes moments") {
  merge_table table;
  for (token t = 0; t < 18; ++t) table.add(t, t, t + 1);  // halves: 2^18 zeros become one token
  std::vector<token> word(1U << 20U, 0);
  table.apply(word);
  CHECK(word == std::vector<token>(4, 18));
}
