// See bpe_description.hpp.
#include "text/bpe_description.hpp"

#include <stdexcept>
#include <string_view>

#include "text/utf8.hpp"

namespace align {
namespace {

void require_id(std::optional<token> id, std::size_t size, std::string_view role) {
  if (id && (*id < 0 || static_cast<std::size_t>(*id) >= size))
    throw std::runtime_error("the id " + std::to_string(*id) + " of the " + std::string(role) +
                             " token is outside the vocabulary of " + std::to_string(size) +
                             " tokens");
}

}  // namespace

void require_valid(const bpe_description& d) {
  const std::size_t size = d.tokens.size();
  if (size == 0) throw std::runtime_error("the vocabulary has no tokens");
  if (d.types.size() != size)
    throw std::runtime_error("the vocabulary has " + std::to_string(size) + " tokens but " +
                             std::to_string(d.types.size()) + " types");
  for (std::size_t i = 0; i < size; ++i) {
    if (d.types[i] < token_type::normal || d.types[i] > token_type::unused)
      throw std::runtime_error("token " + std::to_string(i) + " has the type " +
                               std::to_string(static_cast<int>(d.types[i])) +
                               ", which a byte-level vocabulary does not have");
    if (well_formed_size(d.tokens[i]) != d.tokens[i].size())
      throw std::runtime_error("token " + std::to_string(i) + " is not UTF-8");
  }
  require_id(d.bos, size, "first");
  require_id(d.eos, size, "last");
  require_id(d.eot, size, "end-of-turn");
  require_id(d.pad, size, "padding");
  require_id(d.unknown, size, "unknown");
  require_id(d.missing_byte, size, "missing-byte");
  if (d.add_bos && !d.bos)
    throw std::runtime_error("texts are to begin with a token that the vocabulary does not name");
  if (d.add_eos && !d.eos)
    throw std::runtime_error("texts are to end with a token that the vocabulary does not name");
}

void pad_vocabulary(bpe_description& d, std::size_t size) {
  while (d.tokens.size() < size) {
    d.tokens.push_back("[PAD" + std::to_string(d.tokens.size()) + "]");
    d.types.push_back(token_type::unused);
  }
}

}  // namespace align
