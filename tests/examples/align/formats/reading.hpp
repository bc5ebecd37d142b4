// All that is done with bytes of a file before they are believed, for tests that damage them.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "formats/llama_gguf.hpp"
#include "formats/llama_hugging_face.hpp"
#include "formats/safetensors.hpp"
#include "tiny_model.hpp"

namespace align {

inline void decode_all(const std::vector<stored_tensor>& tensors) {
  for (const stored_tensor& t : tensors) {
    std::vector<float> elements(t.bytes.size() / layout_of(t.type).bytes *
                                layout_of(t.type).elements);
    decode(t.type, t.bytes, elements);
  }
}

inline void read_as_gguf(std::span<const std::byte> bytes) {
  const gguf_contents contents = parse_gguf(bytes, "x.gguf");
  decode_all(contents.tensors);
  shape_of(contents);
}

inline void read_as_safetensors(std::span<const std::byte> bytes) {
  decode_all(parse_safetensors(bytes, "x.safetensors"));
}

inline void read_as_config(std::span<const std::byte> bytes) {
  shape_of_config({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, "config.json");
}

// With the longest scaling of RoPE.
inline std::string tiny_config() {
  return R"({"model_type":"llama","vocab_size":5,"max_position_embeddings":16,"hidden_size":8,)"
         R"("num_hidden_layers":2,"num_attention_heads":2,"num_key_value_heads":1,"head_dim":4,)"
         R"("intermediate_size":6,"rms_norm_eps":1e-05,"tie_word_embeddings":true,)"
         R"("hidden_act":"silu","attention_bias":false,"rope_theta":10000.0,)"
         R"("rope_scaling":{"rope_type":"llama3","factor":8.0,"low_freq_factor":1.0,)"
         R"("high_freq_factor":4.0,"original_max_position_embeddings":8192}})";
}

}  // namespace align
