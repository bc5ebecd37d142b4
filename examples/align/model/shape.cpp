// See shape.hpp.
#include "model/shape.hpp"

#include <cmath>
#include <sstream>
#include <stdexcept>

namespace align {

std::vector<weight_place> weights_of(const model_shape& s) {
  std::vector<weight_place> places;
  std::size_t offset = 0;
  const auto add = [&](std::string name, int rows, int columns) {
    places.push_back({std::move(name) + ".weight", rows, columns, offset});
    offset += places.back().size();
  };
  const int queries = s.heads * s.head_width, keys = s.key_value_heads * s.head_width;
  add("token_embd", s.vocabulary, s.width);
  for (int i = 0; i < s.layers; ++i) {
    const std::string block = "blk." + std::to_string(i) + ".";
    add(block + "attn_norm", 1, s.width);
    add(block + "attn_q", queries, s.width);
    add(block + "attn_k", keys, s.width);
    add(block + "attn_v", keys, s.width);
    add(block + "attn_output", s.width, queries);
    add(block + "ffn_norm", 1, s.width);
    add(block + "ffn_gate", s.feed_forward, s.width);
    add(block + "ffn_up", s.feed_forward, s.width);
    add(block + "ffn_down", s.width, s.feed_forward);
  }
  add("output_norm", 1, s.width);
  if (!s.tied_head) add("output", s.vocabulary, s.width);
  return places;
}

std::size_t parameter_count(const model_shape& shape) {
  const weight_place last = weights_of(shape).back();
  return last.offset + last.size();
}

std::string described(const model_shape& s) {
  std::ostringstream text;
  text.precision(17);
  for (const int size : {s.vocabulary, s.context, s.width, s.layers, s.heads, s.key_value_heads,
                         s.head_width, s.feed_forward, s.tied_head ? 1 : 0}) {
    text << size << ' ';
  }
  text << s.rope_base << ' ' << s.norm_epsilon;
  for (const float divisor : s.rope_divisors) text << ' ' << divisor;
  text << '\n';
  return text.str();
}

void require_valid(const model_shape& s) {
  const auto require = [](bool holds, const char* sentence) {
    if (!holds) throw std::invalid_argument(sentence);
  };
  const auto size = [&](int value, const char* sentence) {
    require(value >= 1 && value <= (1 << 24), sentence);
  };
  size(s.vocabulary, "model: the vocabulary must be from 1 to 2^24");
  size(s.context, "model: the context must be from 1 to 2^24");
  size(s.width, "model: the width must be from 1 to 2^24");
  size(s.layers, "model: the number of layers must be from 1 to 2^24");
  size(s.heads, "model: the number of heads must be from 1 to 2^24");
  size(s.key_value_heads, "model: the number of key-value heads must be from 1 to 2^24");
  size(s.head_width, "model: the width of a head must be from 1 to 2^24");
  size(s.feed_forward, "model: the feed-forward width must be from 1 to 2^24");
  require(s.heads % s.key_value_heads == 0,
          "model: the heads must be a multiple of the key-value heads");
  require(s.head_width % 2 == 0, "model: the width of a head must be even");
  require(s.heads <= (1 << 24) / s.head_width, "model: heads times their width exceed 2^24");
  require(std::isfinite(s.rope_base) && s.rope_base > 0,
          "model: the base of RoPE must be positive");
  require(std::isfinite(s.norm_epsilon) && s.norm_epsilon > 0,
          "model: the epsilon of RMSNorm must be positive");
  require(s.rope_divisors.empty() ||
              s.rope_divisors.size() == static_cast<std::size_t>(s.head_width / 2),
          "model: RoPE needs one divisor for each pair of a head");
}

}  // namespace align
