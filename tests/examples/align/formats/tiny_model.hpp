// A model of a few hundred weights, and what tests do to the files it is saved in.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "../scratch.hpp"
#include "formats/model_files.hpp"

namespace align {

inline model_shape tiny_shape() {
  return {.vocabulary = 5,
          .context = 16,
          .width = 8,
          .layers = 2,
          .heads = 2,
          .key_value_heads = 1,
          .head_width = 4,
          .feed_forward = 6};
}

// Each is exact in 16 bits, and no two rows are alike.
inline std::vector<float> tiny_weights(const model_shape& shape) {
  std::vector<float> weights(parameter_count(shape));
  for (std::size_t i = 0; i < weights.size(); ++i) {
    weights[i] = static_cast<float>(static_cast<int>(i * 37 % 251) - 125) / 64;
  }
  return weights;
}

inline std::vector<float> all_weights(const loaded_model& model) {
  std::vector<float> weights(parameter_count(model.shape));
  for (const weight_place& place : weights_of(model.shape)) {
    model.read(place, std::span(weights).subspan(place.offset, place.size()));
  }
  return weights;
}

inline std::span<const std::byte> as_span(std::string_view text) {
  return std::as_bytes(std::span(text));
}

// The metadata of a GGUF file with a tokenizer, one value of each kind.
inline gguf_metadata tiny_metadata() {
  gguf_metadata metadata;
  metadata.append("general.name", std::string("tiny"));
  metadata.append("general.languages", gguf_array(std::vector<std::string>{"en", ""}));
  metadata.append("tokenizer.ggml.tokens",
                  gguf_array(std::vector<std::string>{"a", "b", "c", "d", "e"}));
  metadata.append("tokenizer.ggml.token_type",
                  gguf_array(std::vector<std::int32_t>{1, 1, 1, 1, 3}));
  metadata.append("tokenizer.ggml.scores", gguf_array(std::vector<float>{0, -1, -2, -3, -4}));
  metadata.append("tokenizer.ggml.eos_token_id", std::uint32_t{4});
  metadata.append("tokenizer.ggml.add_bos_token", false);
  metadata.append("tokenizer.kinds.u8", std::uint8_t{200});
  metadata.append("tokenizer.kinds.i8", std::int8_t{-100});
  metadata.append("tokenizer.kinds.u16", std::uint16_t{60000});
  metadata.append("tokenizer.kinds.i16", std::int16_t{-30000});
  metadata.append("tokenizer.kinds.i32", std::int32_t{-2000000000});
  metadata.append("tokenizer.kinds.u64", std::uint64_t{1} << 63U);
  metadata.append("tokenizer.kinds.i64", std::int64_t{-1});
  metadata.append("tokenizer.kinds.f32", 1e-5F);
  metadata.append("tokenizer.kinds.f64", 1e-300);
  metadata.append("tokenizer.kinds.flags", gguf_array(std::vector<bool>{true, false, true}));
  metadata.append("tokenizer.kinds.none", gguf_array(std::vector<std::uint64_t>{}));
  return metadata;
}

// The bytes of a file with the tiny model.
inline std::string tiny_gguf(element_type type = element_type::f16) {
  const scratch here;
  const auto path = here.folder() / "tiny.gguf";
  save_model(path, tiny_shape(), tiny_weights(tiny_shape()), type,
             {.metadata = tiny_metadata(), .config = ""});
  return scratch::read(path);
}

inline std::string tiny_safetensors() {
  const scratch here;
  save_model(here.folder(), tiny_shape(), tiny_weights(tiny_shape()), element_type::bf16, {});
  return scratch::read(here.folder() / "model.safetensors");
}

// The first `from` becomes `to`; which must be there.
inline std::string replaced(std::string text, std::string_view from, std::string_view to) {
  return text.replace(text.find(from), from.size(), to);
}

}  // namespace align
