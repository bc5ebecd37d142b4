// What the metadata of a GGUF file say of a Llama model, and what they have to say of one.
#pragma once

#include "formats/gguf.hpp"
#include "model/shape.hpp"

namespace align {

// Throws std::runtime_error for other architectures and for what changes the arithmetic.
model_shape shape_of(const gguf_contents& contents);

// The shape and `type`, and all that `origin` says of other things: names, licences, the tokenizer.
gguf_metadata metadata_of(const model_shape& shape, element_type type, const gguf_metadata& origin);

// Of RoPE's divisors, if the model has some.
inline constexpr const char* rope_divisors_name = "rope_freqs.weight";

}  // namespace align
