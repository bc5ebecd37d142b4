// Writing: completions drawn from a model, one token after the other, with the keys and values of
// what was read so far kept.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "model/language_model.hpp"
#include "text/words.hpp"
#include "threads.hpp"

namespace align {

struct sample {
  std::vector<token> completion;  // with its end token where it has one
  bool ended = false;             // false: cut off at the limit
};

struct sampling {
  double temperature = 1;    // 0: the most probable token
  std::size_t longest = 64;  // tokens, where the context of the model does not end before
  token end = 0;             // ends a completion
  std::uint64_t seed = 1;
  std::size_t together = 32;  // sequences at a time: memory for speed
};

// One completion per prompt. Each depends on its place in the list and the seed, not on the others.
// `written` is told how many are done, and the tokens read and written for them; when it says
// false, what is there is returned.
std::vector<sample> write_completions(
    const language_model& model, std::span<const std::vector<token>> prompts, const sampling& how,
    workers& on,
    const std::function<bool(std::size_t, std::size_t)>& written = [](std::size_t, std::size_t) {
      return true;
    });

// The most that this holds at a time.
std::size_t writing_bytes(const language_model& model, std::size_t longest_prompt,
                          std::size_t longest_completion,
                          std::size_t together = sampling{}.together);

}  // namespace align
