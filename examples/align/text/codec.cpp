// See codec.hpp. Only the words: a tokeniser of a model brings a codec of its own.
#include "text/codec.hpp"

#include <memory>
#include <utility>

namespace align {

words prompt_words(std::span<const message> prompt) {
  words all;
  const auto add = [&all](std::string_view text) {
    for (std::string& word : tokenise(text)) all.push_back(std::move(word));
  };
  for (const message& m : prompt) {
    if (prompt.size() > 1) add(m.role + ":");
    add(m.content);
  }
  return all;
}

codec word_codec(vocabulary known) {
  // Shared, because the functions are copied with the codec.
  const auto shared = std::make_shared<const vocabulary>(std::move(known));
  codec made;
  made.vocabulary = shared->size();
  made.begin = vocabulary::begin;
  made.end = vocabulary::end;
  made.prompt = [shared](std::span<const message> messages) {
    std::vector<token> ids = shared->encode(prompt_words(messages));
    ids.insert(ids.begin(), vocabulary::begin);
    ids.push_back(vocabulary::separator);
    return ids;
  };
  made.completion = [shared](std::string_view text) { return shared->encode(tokenise(text)); };
  made.decode = [shared](std::span<const token> ids) { return shared->decode(ids); };
  return made;
}

}  // namespace align
