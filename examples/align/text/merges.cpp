// See merges.hpp.
#include "text/merges.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <functional>
#include <limits>
#include <queue>
#include <span>

namespace align {
namespace {

constexpr std::size_t short_word = 32;  // up to here looking at every pair is quicker than a heap

std::uint64_t key_of(token left, token right) {
  return (std::uint64_t{static_cast<std::uint32_t>(left)} << 32U) |
         static_cast<std::uint32_t>(right);
}

}  // namespace

bool merge_table::add(token left, token right, token result) {
  const auto rank = static_cast<std::uint32_t>(merges_.size());
  return merges_.try_emplace(key_of(left, right), merge{.rank = rank, .result = result}).second;
}

const merge_table::merge* merge_table::find(token left, token right) const {
  const auto found = merges_.find(key_of(left, right));
  return found == merges_.end() ? nullptr : &found->second;
}

void merge_table::apply(std::vector<token>& word) const {
  if (word.size() <= short_word)
    apply_to_short(word);
  else
    apply_to_long(word);
}

void merge_table::apply_to_short(std::vector<token>& word) const {
  constexpr merge none{.rank = std::numeric_limits<std::uint32_t>::max(), .result = 0};
  std::array<merge, short_word> at;  // at[i]: of word[i] and its right neighbour
  const auto look = [&](std::size_t i) {
    const merge* found = i + 1 < word.size() ? find(word[i], word[i + 1]) : nullptr;
    at[i] = found ? *found : none;
  };
  for (std::size_t i = 0; i < word.size(); ++i) look(i);
  while (word.size() > 1) {
    const std::span<merge> pairs = std::span(at).first(word.size());
    const auto best = std::ranges::min_element(pairs, {}, &merge::rank);
    if (best->rank == none.rank) return;
    const std::ptrdiff_t place = best - pairs.begin();
    const auto i = static_cast<std::size_t>(place);
    word[i] = best->result;
    word.erase(word.begin() + place + 1);
    std::copy(best + 1, pairs.end(), best);
    look(i);
    if (i > 0) look(i - 1);
  }
}

// A list of what is left, by places in the word, and a heap of pairs. A pair whose tokens have
// changed since it was put there is passed over.
void merge_table::apply_to_long(std::vector<token>& word) const {
  struct candidate {
    std::uint32_t rank;
    std::size_t left, right;
    std::uint64_t pair;
    token result;
    bool operator>(const candidate& other) const {
      return rank != other.rank ? rank > other.rank : left > other.left;
    }
  };
  constexpr token gone = -1;
  const std::size_t end = word.size();
  std::vector<std::size_t> before(end), after(end);
  std::priority_queue<candidate, std::vector<candidate>, std::greater<>> heap;
  const auto look = [&](std::size_t left, std::size_t right) {
    if (const merge* found = find(word[left], word[right]))
      heap.push({.rank = found->rank,
                 .left = left,
                 .right = right,
                 .pair = key_of(word[left], word[right]),
                 .result = found->result});
  };
  for (std::size_t i = 0; i < end; ++i) {
    before[i] = i - 1;  // of the first: never read
    after[i] = i + 1;
    if (i + 1 < end) look(i, i + 1);
  }
  while (!heap.empty()) {
    const candidate best = heap.top();
    heap.pop();
    if (word[best.left] == gone || word[best.right] == gone) continue;
    if (after[best.left] != best.right || key_of(word[best.left], word[best.right]) != best.pair)
      continue;
    word[best.left] = best.result;
    word[best.right] = gone;
    after[best.left] = after[best.right];
    if (after[best.left] < end) {
      before[after[best.left]] = best.left;
      look(best.left, after[best.left]);
    }
    if (best.left > 0) look(before[best.left], best.left);
  }
  std::erase(word, gone);
}

}  // namespace align
