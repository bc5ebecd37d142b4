// See added_tokens.hpp.
#include "text/added_tokens.hpp"

#include <algorithm>
#include <functional>

namespace align {

void added_tokens::add(const std::string& text, token id) {
  if (text.empty()) return;
  starts_[static_cast<unsigned char>(text.front())] = true;
  ids_.emplace(text, id);
  if (std::ranges::find(sizes_, text.size()) == sizes_.end()) sizes_.push_back(text.size());
  std::ranges::sort(sizes_, std::greater<>());
}

std::optional<added_tokens::place> added_tokens::find(std::string_view text,
                                                      std::size_t from) const {
  if (ids_.empty()) return std::nullopt;
  for (std::size_t begin = from; begin < text.size(); ++begin) {
    if (!starts_[static_cast<unsigned char>(text[begin])]) continue;
    for (const std::size_t size : sizes_) {
      if (size > text.size() - begin) continue;
      const auto found = ids_.find(text.substr(begin, size));
      if (found != ids_.end()) return place{.begin = begin, .size = size, .id = found->second};
    }
  }
  return std::nullopt;
}

}  // namespace align
