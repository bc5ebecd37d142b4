// Which rows must not be torn apart by a split: what a model has seen of a text in training, it
// knows in the held-out part.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace align {

// The texts of a row or a duel.
struct row_texts {
  std::string prompt;
  std::vector<std::string> answers;
};

// Groups of rows that belong together; every row is in one. Texts that differ in nothing but the
// case of their letters, blanks and marks count as the same.
//   - The same prompt and an answer of the same text: always.
//   - The same prompt: unless it is a common one, which more than a tenth of all rows have ("Write
//   a
//     review"). Such a prompt is no question of its own, and keeping it together would make the
//     held-out part its own topic.
//   - An answer of the same text: unless the group would hold more than a tenth of all rows. A text
//     that comes that often ("Yes."), or chains that many prompts, is a stock phrase and not a
//     copy.
std::vector<std::vector<std::size_t>> related_rows(std::span<const row_texts> rows);

// Takes whole groups in an order drawn from the seed: four fifths of the rows, and the rest.
struct row_split {
  std::vector<std::size_t> train, held_out;
};
row_split split_groups(std::vector<std::vector<std::size_t>> groups, std::uint64_t seed);

}  // namespace align
