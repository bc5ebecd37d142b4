// See grouping.hpp.
#include "data/grouping.hpp"

#include <algorithm>
#include <numeric>
#include <set>
#include <unordered_map>

#include "random_source.hpp"

namespace align {
namespace {

constexpr double train_share = 0.8;
constexpr std::size_t common_part = 10;  // a tenth: half of the held-out part

// Letters and digits in lower case, what lies outside of ASCII as it is, one blank for all between.
std::string folded(std::string_view text) {
  std::string out;
  bool gap = false;
  for (const char c : text) {
    const bool upper = c >= 'A' && c <= 'Z';
    const bool plain = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
    if (!upper && !plain && static_cast<unsigned char>(c) < 0x80) {
      gap = !out.empty();
      continue;
    }
    if (gap) out += ' ';
    gap = false;
    out += upper ? static_cast<char>(c - 'A' + 'a') : c;
  }
  return out;
}

// Sets of rows that only ever grow together.
class forest {
 public:
  explicit forest(std::size_t rows) : parent_(rows), size_(rows, 1) {
    std::iota(parent_.begin(), parent_.end(), std::size_t{0});
  }

  std::size_t root(std::size_t i) {
    while (parent_[i] != i) i = parent_[i] = parent_[parent_[i]];
    return i;
  }

  std::size_t size(std::size_t root) const { return size_[root]; }

  void join(std::size_t a, std::size_t b) {
    a = root(a), b = root(b);
    if (a == b) return;
    if (size_[a] < size_[b]) std::swap(a, b);
    parent_[b] = a;
    size_[a] += size_[b];
  }

  void join(std::span<const std::size_t> rows) {
    for (const std::size_t i : rows) join(rows.front(), i);
  }

 private:
  std::vector<std::size_t> parent_, size_;
};

// The rows of every key, keys in the order in which they first come.
class index {
 public:
  void add(const std::string& key, std::size_t row) {
    const auto [at, is_new] = places_.emplace(key, lists_.size());
    if (is_new) lists_.emplace_back();
    lists_[at->second].push_back(row);
  }

  const std::vector<std::vector<std::size_t>>& lists() const { return lists_; }

 private:
  std::unordered_map<std::string, std::size_t> places_;
  std::vector<std::vector<std::size_t>> lists_;
};

}  // namespace

std::vector<std::vector<std::size_t>> related_rows(std::span<const row_texts> rows) {
  index by_prompt, by_answer, by_both;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const std::string prompt = folded(rows[i].prompt);
    by_prompt.add(prompt, i);
    for (const std::string& text : rows[i].answers) {
      const std::string answer = folded(text);
      by_answer.add(answer, i);
      by_both.add(prompt + '\0' + answer, i);
    }
  }
  const auto too_many = [&](std::size_t some) { return some * common_part > rows.size(); };

  forest groups(rows.size());
  for (const auto& same : by_both.lists()) groups.join(same);
  for (const auto& same : by_prompt.lists()) {
    if (!too_many(same.size())) groups.join(same);
  }
  for (const auto& same : by_answer.lists()) {
    std::set<std::size_t> roots;
    for (const std::size_t i : same) roots.insert(groups.root(i));
    std::size_t together = 0;
    for (const std::size_t root : roots) together += groups.size(root);
    if (!too_many(together)) groups.join(same);
  }

  index by_group;
  for (std::size_t i = 0; i < rows.size(); ++i) by_group.add(std::to_string(groups.root(i)), i);
  return by_group.lists();
}

row_split split_groups(std::vector<std::vector<std::size_t>> groups, std::uint64_t seed) {
  random_source random(seed);
  shuffle(std::span(groups), random);
  std::size_t rows = 0;
  for (const auto& group : groups) rows += group.size();
  const auto wanted = rows - static_cast<std::size_t>(train_share * static_cast<double>(rows));

  // From the end, every group that still fits; where none does, the smallest.
  std::vector<char> held(groups.size(), 0);
  std::size_t taken = 0;
  for (std::size_t g = groups.size(); g-- > 0;) {
    if (taken + groups[g].size() > wanted) continue;
    held[g] = 1;
    taken += groups[g].size();
  }
  if (taken == 0 && groups.size() > 1) {
    const auto smallest = std::ranges::min_element(groups, {}, &std::vector<std::size_t>::size);
    held[static_cast<std::size_t>(smallest - groups.begin())] = 1;
  }

  row_split parts;
  for (std::size_t g = 0; g < groups.size(); ++g) {
    auto& part = held[g] != 0 ? parts.held_out : parts.train;
    part.insert(part.end(), groups[g].begin(), groups[g].end());
  }
  return parts;
}

}  // namespace align
