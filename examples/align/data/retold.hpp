// Feedback in words, told to a model that has tokens of its own: so the synthetic source, whose
// true reward is known, also serves a given model.
#pragma once

#include "data/data.hpp"

namespace align {

// `told` has words as its tokens. Its true reward reads what the model writes as words.
dataset retold(const dataset& told, const codec& text);

}  // namespace align
