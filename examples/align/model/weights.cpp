// See weights.hpp.
#include "model/weights.hpp"

#include <string>

namespace align {

std::vector<weight_place> adapters_of(const model_shape& s, const lora_settings& lora) {
  std::vector<weight_place> places;
  if (lora.rank == 0) return places;
  std::size_t offset = 0;
  const auto add = [&](std::string name, int rows, int columns) {
    places.push_back({std::move(name), rows, columns, offset});
    offset += places.back().size();
  };
  struct output {
    const char* name;
    int size;
  };
  const int queries = s.heads * s.head_width, keys = s.key_value_heads * s.head_width;
  for (int i = 0; i < s.layers; ++i) {
    const std::string block = "blk." + std::to_string(i) + ".";
    const auto together = [&](std::initializer_list<output> outputs, int inputs) {
      for (const output& o : outputs) add(block + o.name + ".lora_a", lora.rank, inputs);
      for (const output& o : outputs) add(block + o.name + ".lora_b", o.size, lora.rank);
    };
    together({{"attn_q", queries}, {"attn_k", keys}, {"attn_v", keys}}, s.width);
    together({{"attn_output", s.width}}, queries);
    together({{"ffn_gate", s.feed_forward}, {"ffn_up", s.feed_forward}}, s.width);
    together({{"ffn_down", s.width}}, s.feed_forward);
  }
  if (lora.head) {
    add("output.lora_a", lora.rank, s.width);
    add("output.lora_b", s.vocabulary, lora.rank);
  }
  return places;
}

std::size_t adapter_count(const model_shape& shape, const lora_settings& lora) {
  if (lora.rank == 0) return 0;
  const weight_place last = adapters_of(shape, lora).back();
  return last.offset + last.size();
}

}  // namespace align
