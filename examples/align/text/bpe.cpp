// See bpe.hpp.
#include "text/bpe.hpp"

#include <stdexcept>
#include <utility>

#include "text/byte_level.hpp"
#include "text/utf8.hpp"

namespace align {
namespace {

bpe_description valid(bpe_description description) {
  require_valid(description);
  return description;
}

std::string quoted(std::string_view text) { return "\"" + std::string(text) + "\""; }

bool is_special(token_type type) {
  return type != token_type::normal && type != token_type::user_defined;
}

}  // namespace

bpe::bpe(bpe_description description)
    : description_(valid(std::move(description))), pre_tokeniser_(description_.regexes) {
  byte_ids_.fill(-1);
  ids_.reserve(size());
  bytes_.resize(size());
  for (std::size_t i = 0; i < size(); ++i) add_token(static_cast<token>(i));
  add_merges();
  add_whole_words();
}

void bpe::add_token(token id) {
  const auto i = static_cast<std::size_t>(id);
  const std::string& spelling = description_.tokens[i];
  const token_type type = description_.types[i];
  if (const auto [twin, is_new] = ids_.try_emplace(spelling, id); !is_new)
    throw std::runtime_error("the vocabulary has " + quoted(spelling) + " twice, as " +
                             std::to_string(twin->second) + " and " + std::to_string(id));
  bytes_[i] = spelling;
  if (type == token_type::normal) {
    // A spelling outside the alphabet never comes from a text, and is itself when decoded.
    std::optional<std::string> bytes = bytes_spelled_by(spelling);
    if (!bytes) return;
    bytes_[i] = *std::move(bytes);
    if (bytes_[i].size() == 1) byte_ids_[static_cast<unsigned char>(bytes_[i].front())] = id;
  } else if (type == token_type::user_defined) {
    markup_.add(spelling, id);
    user_defined_.add(spelling, id);
  } else if (type != token_type::unused) {
    markup_.add(spelling, id);
  }
}

void bpe::add_merges() {
  merges_.reserve(description_.merges.size());
  const auto need = [&](std::string_view spelling, const std::string& merge) {
    const std::optional<token> found = id(spelling);
    if (!found)
      throw std::runtime_error("the merge " + quoted(merge) + " needs the token " +
                               quoted(spelling) + ", which the vocabulary does not have");
    return *found;
  };
  for (const std::string& merge : description_.merges) {
    const std::size_t space = merge.find(' ');
    if (space == std::string::npos || merge.find(' ', space + 1) != std::string::npos)
      throw std::runtime_error("the merge " + quoted(merge) + " is not two tokens and a space");
    const std::string left = merge.substr(0, space), right = merge.substr(space + 1);
    const token first = need(left, merge), second = need(right, merge);
    if (!merges_.add(first, second, need(left + right, merge)))
      throw std::runtime_error("the merge " + quoted(merge) + " comes twice");
  }
}

// Most words of a text are tokens as they are; these are looked up instead of merged.
void bpe::add_whole_words() {
  whole_words_.reserve(size());
  for (std::size_t i = 0; i < size(); ++i) {
    if (description_.types[i] != token_type::normal || bytes_[i].empty()) continue;
    if (!bytes_spelled_by(description_.tokens[i])) continue;
    const auto id = static_cast<token>(i);
    if (description_.ignore_merges || merged(bytes_[i]) == std::vector<token>{id})
      whole_words_.emplace(bytes_[i], id);
  }
}

std::optional<token> bpe::id(std::string_view spelling) const {
  const auto found = ids_.find(spelling);
  return found == ids_.end() ? std::nullopt : std::optional(found->second);
}

std::vector<token> bpe::merged(std::string_view word) const {
  std::vector<token> ids;
  ids.reserve(word.size());
  for (const char c : word) {
    const token id = byte_ids_[static_cast<unsigned char>(c)];
    if (id >= 0)
      ids.push_back(id);
    else if (description_.missing_byte)
      ids.push_back(*description_.missing_byte);
  }
  merges_.apply(ids);
  return ids;
}

void bpe::encode_word(std::string_view word, std::vector<token>& ids) const {
  if (const auto found = whole_words_.find(word); found != whole_words_.end()) {
    ids.push_back(found->second);
    return;
  }
  const std::vector<token> several = merged(word);
  ids.insert(ids.end(), several.begin(), several.end());
}

void bpe::encode_pieces(std::string_view text, std::vector<token>& ids) const {
  for (const std::string_view word : pre_tokeniser_.split(text)) encode_word(word, ids);
}

void bpe::encode_plain(std::string_view text, std::vector<token>& ids) const {
  std::size_t done = 0;
  while (const auto place = user_defined_.find(text, done)) {
    encode_pieces(text.substr(done, place->begin - done), ids);
    ids.push_back(place->id);
    done = place->begin + place->size;
  }
  encode_pieces(text.substr(done), ids);
}

std::vector<token> bpe::encode(std::string_view text, bool parse_specials) const {
  const std::array<text_part, 1> whole = {{{.text = std::string(text), .markup = parse_specials}}};
  return encode(whole);
}

std::vector<token> bpe::encode(std::span<const text_part> parts) const {
  std::vector<token> ids;
  std::string plain;  // since the last token of the markup
  for (const text_part& part : parts) {
    require_utf8(part.text);
    std::size_t done = 0;
    while (part.markup) {
      const auto place = markup_.find(part.text, done);
      if (!place) break;
      plain.append(part.text, done, place->begin - done);
      encode_plain(std::exchange(plain, {}), ids);
      ids.push_back(place->id);
      done = place->begin + place->size;
    }
    plain.append(part.text, done);
  }
  encode_plain(plain, ids);
  return ids;
}

std::string bpe::decode(std::span<const token> ids, bool keep_specials) const {
  std::string text;
  for (const token id : ids) {
    if (id < 0 || static_cast<std::size_t>(id) >= size())
      throw std::runtime_error("the id " + std::to_string(id) + " is none of the vocabulary's " +
                               std::to_string(size()) + " tokens");
    const auto i = static_cast<std::size_t>(id);
    if (keep_specials || !is_special(description_.types[i])) text += bytes_[i];
  }
  return text;
}

}  // namespace align
