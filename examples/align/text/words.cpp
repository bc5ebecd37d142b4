// See words.hpp.
#include "text/words.hpp"

#include <algorithm>
#include <stdexcept>
#include <utility>

namespace align {
namespace {

// The <cctype> functions depend on the locale; these must not.
bool is_letter(char c) { return c >= 'a' && c <= 'z'; }
bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_mark(char c) { return std::string_view(".,;:!?()-'\"").find(c) != std::string_view::npos; }

std::string lower_ascii(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (const char c : text) {
    if (static_cast<unsigned char>(c) >= 0x80) continue;
    out += c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  }
  return out;
}

}  // namespace

words tokenise(std::string_view text) {
  const std::string line = lower_ascii(text);
  words found;
  std::size_t at = 0;
  const auto run_of = [&](auto belongs, std::size_t from) {
    while (from < line.size() && belongs(line[from])) ++from;
    return from;
  };
  while (at < line.size()) {
    std::size_t end = at + 1;
    if (is_letter(line[at])) {
      end = run_of(is_letter, at);
      if (end + 1 < line.size() && line[end] == '\'' && is_letter(line[end + 1])) {
        end = run_of(is_letter, end + 1);
      }
    } else if (is_digit(line[at])) {
      end = run_of(is_digit, at);
    } else if (!is_mark(line[at])) {
      ++at;
      continue;
    }
    found.push_back(line.substr(at, end - at));
    at = end;
  }
  return found;
}

vocabulary::vocabulary(const words& in_order) : words_{"<unk>", "<begin>", "<sep>", "<end>"} {
  words_.insert(words_.end(), in_order.begin(), in_order.end());
  for (std::size_t i = 0; i < words_.size(); ++i) {
    if (!ids_.emplace(words_[i], static_cast<token>(i)).second) {
      throw std::invalid_argument("vocabulary: the word '" + words_[i] + "' appears twice");
    }
  }
}

vocabulary vocabulary::most_frequent(std::span<const words> texts, std::size_t limit) {
  std::unordered_map<std::string, std::size_t> counts;
  for (const words& text : texts) {
    for (const std::string& word : text) ++counts[word];
  }
  std::vector<std::pair<std::string, std::size_t>> ranked(counts.begin(), counts.end());
  std::ranges::sort(ranked, [](const auto& a, const auto& b) {
    return a.second != b.second ? a.second > b.second : a.first < b.first;
  });
  ranked.resize(std::min(limit, ranked.size()));
  words chosen;
  for (auto& [word, count] : ranked) chosen.push_back(std::move(word));
  return vocabulary(chosen);
}

token vocabulary::id(std::string_view word) const {
  const auto found = ids_.find(std::string(word));
  return found == ids_.end() ? unknown : found->second;
}

std::vector<token> vocabulary::encode(std::span<const std::string> text) const {
  std::vector<token> ids;
  ids.reserve(text.size());
  for (const std::string& word : text) ids.push_back(id(word));
  return ids;
}

std::string vocabulary::decode(std::span<const token> ids) const {
  std::string text;
  for (const token i : ids) {
    if (i == begin || i == separator || i == end) continue;
    if (!text.empty()) text += ' ';
    text += word(i);
  }
  return text;
}

}  // namespace align
