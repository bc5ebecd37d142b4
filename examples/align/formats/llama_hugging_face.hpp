// A Llama model as Hugging Face's libraries see it: config.json, the names of its tensors, and the
// order of the rows that RoPE turns.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "formats/gguf.hpp"
#include "model/shape.hpp"

namespace align {

// Of the text of a config.json. Throws std::runtime_error, which begins with `name`, for other
// architectures and for what changes the arithmetic.
model_shape shape_of_config(std::string_view config, const std::string& name);

// The numbers of special tokens come from where the model does: from its config.json, if that is
// not empty, or from the metadata of its GGUF file.
std::string config_of(const model_shape& shape, element_type type, std::string_view origin,
                      const gguf_metadata& metadata);

// "model.layers.3.mlp.up_proj.weight" of "blk.3.ffn_up.weight".
std::string hugging_face_name(std::string_view name);

// Whether the rows of this weight are in another order there, and then, where row `row` is there:
// of each head, the first halves of all pairs come before the second ones.
bool has_turned_rows(std::string_view name);
std::size_t hugging_face_row(std::size_t row, std::size_t head_width);

}  // namespace align
