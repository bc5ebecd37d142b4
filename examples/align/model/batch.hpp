// Packed batches: sequences of different lengths back to back, without padding, and a list of the
// positions that are scored, so that a prompt costs nothing in the head.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "text/words.hpp"

namespace align {

struct packed_batch {
  std::vector<token> inputs;
  std::vector<std::int32_t> offsets{0};  // sequence i is inputs[offsets[i] .. offsets[i + 1])

  std::vector<std::int32_t> scored;             // where in `inputs` the next token is scored
  std::vector<token> targets;                   // that next token, one per scored position
  std::vector<std::int32_t> scored_offsets{0};  // the same positions, by sequence

  std::size_t sequences() const { return offsets.size() - 1; }

  // Scores every token of the completion: its end is among them where the answer is whole. The last
  // token is only a target, never an input. A prompt holds at least one token, since the first of
  // the completion is predicted from it.
  void append(std::span<const token> prompt, std::span<const token> completion);

  // An unfinished completion of which only the last position is scored, to ask what comes next. Its
  // target is a placeholder.
  void append_open(std::span<const token> prompt, std::span<const token> completion);

  // Keeps the memory.
  void clear();
};

// The inputs that a sequence with these parts has.
constexpr std::size_t sequence_length(std::size_t prompt, std::size_t completion) {
  return prompt + completion - 1;
}

}  // namespace align
