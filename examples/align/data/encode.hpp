// From texts to rows of tokens that are no longer than a model may see; counts what it had to cut.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "data/data.hpp"
#include "data/left_out.hpp"
#include "data/sources.hpp"

namespace align {

class encoder {
 public:
  // Needs room for the begin token and one more. The codec must outlive it.
  encoder(const codec& text, std::size_t max_prompt, std::size_t max_completion);

  // Rows of which no token is left, and pairs whose answers have become the same, are left out.
  std::vector<row> operator()(const std::vector<text_row>& all);
  std::vector<duel> operator()(const std::vector<text_duel>& all);

  // What was cut and left out since it was made.
  void note(std::vector<std::string>& notes) const;

 private:
  std::vector<token> prompt(std::span<const message> messages);
  std::vector<token> completion(std::string_view text);

  const codec& text_;
  std::size_t max_prompt_, max_completion_;
  std::size_t prompts_ = 0, cut_prompts_ = 0, completions_ = 0, cut_completions_ = 0;
  left_out empty_{"rows with a completion that has no token"};
  left_out same_{"pairs whose two completions are the same tokens"};
};

}  // namespace align
