// The codec of a given model: its own tokeniser, and its own template for conversations.
#pragma once

#include <string>

#include "formats/model_files.hpp"
#include "text/codec.hpp"

namespace align {

// `format` names a chat format; "": the one that the model's template is. Throws
// std::runtime_error where the model has no tokeniser that we know.
codec chat_codec(const model_origin& origin, const std::string& format);

// The same model's tokeniser in the other form too, so that it comes along into a GGUF file and
// into a folder, wherever it came from.
model_origin with_tokeniser(model_origin origin);

}  // namespace align
