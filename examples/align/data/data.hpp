// Human (or synthetic) feedback, ready for training: thumbs on single completions, or choices
// between two, as tokens, split into a train and a held-out part.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "text/codec.hpp"

namespace align {

// Unpaired feedback: one completion, one thumb. The prompt is complete, with all that a model reads
// before it answers. The completion is what is scored, never empty: a whole answer ends with the
// end token, one that was cut does not.
struct row {
  std::vector<token> prompt, completion;
  bool desirable = false;
  std::size_t line = 0;  // of its file, from 1; 0: it comes from none
};

// Paired feedback: two completions, one choice.
struct duel {
  std::vector<token> prompt, chosen, rejected;

  // Only pairs made from unpaired rows have it: there the rejected text answers another prompt,
  // and putting it behind `prompt` would teach that mismatched text is bad.
  std::optional<std::vector<token>> rejected_prompt = {};

  std::size_t line = 0, rejected_line = 0;  // the same, unless two rows were paired

  const std::vector<token>& prompt_of_rejected() const {
    return rejected_prompt ? *rejected_prompt : prompt;
  }
};

// Exactly one of both is non-empty as loaded.
struct split {
  std::vector<row> rows;
  std::vector<duel> duels;
};

struct dataset {
  std::string name;
  codec text;
  split train, held_out;
  bool paired = false;  // the form in which it was loaded: duels or rows

  // Every text of the train part, before any thumb was dropped: what the reference model is
  // trained on by next-token loss.
  std::vector<row> corpus;

  // What a reader of the results must know: rows left out, pairs made, thumbs dropped.
  std::vector<std::string> notes;

  // False for texts that a report must not quote because they are offensive.
  bool quotable = true;

  // P(thumb up), known exactly for the synthetic source and empty for every other.
  std::function<double(std::span<const token> prompt, std::span<const token> completion)>
      true_reward;
};

struct feedback_request {
  std::string path = {};  // a file or a folder; "" asks for the synthetic source
  std::uint64_t seed = 1;
  double drop_desirable = 0;  // share of the desirable train rows to drop, in [0, 1)
  double flip = 0;            // share of the train thumbs or choices to turn round, in [0, 1]
  bool want_pairs = false;    // the synthetic source can give either form; files have their own

  // What makes tokens of texts; without one, the words of the train part are the vocabulary. The
  // synthetic source is retold.
  std::optional<codec> text = {};

  // Tokens that a row may have, its markup and end included. A longer prompt keeps its end and the
  // begin token, a longer completion its beginning.
  std::size_t max_prompt = 40, max_completion = 56;

  std::size_t held_out_rows = 0;  // (or pairs) at most; 0: all
};

// Loads feedback in its own form (see `dataset::paired`). The held-out part never depends on the
// seed, and no text of it is in the train part (see grouping.hpp). Throws std::runtime_error with
// one clear sentence.
dataset load(const feedback_request& request);

// Pairs every desirable row with an undesirable one: of the same prompt while there are any, then
// of a prompt with the same first token behind what all prompts start with, then of any. Surplus
// rows of the larger class are left out. The pairing is drawn by the seed.
std::vector<duel> pair_rows(std::vector<row> rows, std::uint64_t seed);

// All chosen first, then all rejected, so that a rotation by one never meets its own prompt.
std::vector<row> split_duels(const std::vector<duel>& duels);

}  // namespace align
