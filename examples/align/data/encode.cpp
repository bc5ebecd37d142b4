// See encode.hpp.
#include "data/encode.hpp"

#include <stdexcept>
#include <utility>

namespace align {

encoder::encoder(const codec& text, std::size_t max_prompt, std::size_t max_completion)
    : text_(text), max_prompt_(max_prompt), max_completion_(max_completion) {
  if (max_prompt < 2) throw std::invalid_argument("max_prompt must be at least 2");
  if (max_completion < 1) throw std::invalid_argument("max_completion must be at least 1");
}

std::vector<row> encoder::operator()(const std::vector<text_row>& all) {
  std::vector<row> out;
  out.reserve(all.size());
  for (const text_row& r : all) {
    row made{prompt(r.prompt), completion(r.completion), r.desirable, r.line};
    if (made.completion.empty()) {
      empty_.lines.push_back(r.line);
    } else {
      out.push_back(std::move(made));
    }
  }
  return out;
}

std::vector<duel> encoder::operator()(const std::vector<text_duel>& all) {
  std::vector<duel> out;
  out.reserve(all.size());
  for (const text_duel& d : all) {
    duel made{.prompt = prompt(d.prompt),
              .chosen = completion(d.chosen),
              .rejected = completion(d.rejected),
              .line = d.line,
              .rejected_line = d.line};
    if (made.chosen.empty() || made.rejected.empty()) {
      empty_.lines.push_back(d.line);
    } else if (made.chosen == made.rejected) {
      same_.lines.push_back(d.line);
    } else {
      out.push_back(std::move(made));
    }
  }
  return out;
}

void encoder::note(std::vector<std::string>& notes) const {
  empty_.note(notes);
  same_.note(notes);
  if (cut_prompts_ + cut_completions_ == 0) return;
  const auto of = [](std::size_t cut, std::size_t all) {
    return std::to_string(cut) + " of " + std::to_string(all);
  };
  notes.push_back("Cut " + of(cut_prompts_, prompts_) + " prompts to the last " +
                  std::to_string(max_prompt_) + " tokens and " +
                  of(cut_completions_, completions_) + " completions to the first " +
                  std::to_string(max_completion_) + ", which then have no end.");
}

std::vector<token> encoder::prompt(std::span<const message> messages) {
  std::vector<token> ids = text_.prompt(messages);
  ++prompts_;
  // The first token of an answer is predicted from something. Text that has no begin token of its
  // own begins where another ended.
  if (ids.empty()) ids.push_back(text_.end);
  if (ids.size() <= max_prompt_) return ids;
  ++cut_prompts_;
  const bool begins = text_.begin && ids.front() == *text_.begin;
  const auto kept = static_cast<std::ptrdiff_t>(max_prompt_ - (begins ? 1 : 0));
  ids.erase(ids.begin() + (begins ? 1 : 0), ids.end() - kept);
  return ids;
}

std::vector<token> encoder::completion(std::string_view text) {
  std::vector<token> ids = text_.completion(text);
  if (ids.empty()) return ids;
  ++completions_;
  ids.push_back(text_.end);
  if (ids.size() <= max_completion_) return ids;
  ++cut_completions_;
  ids.resize(max_completion_);
  return ids;
}

}  // namespace align
