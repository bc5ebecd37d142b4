// What the frozen model gives: log-probabilities of all that a stage measures against it, computed
// once, before training, while the policy still is the reference. So no second model is held; and
// kept in a file, runs of other losses and parameters on the same rows need not compute it again.
#pragma once

#include <cstddef>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "model/language_model.hpp"
#include "training/plan.hpp"

namespace align {

// Log-probabilities of completions, in nats, of each token.
struct scored_tokens {
  std::vector<float> log_probs;         // one after the other
  std::vector<std::size_t> offsets{0};  // completion i has [offsets[i], offsets[i + 1])

  double sum(std::size_t i) const;
};

// `done` is told how many completions there are so far, and the tokens read for them; when it says
// false, the rest is left out and nothing comes back.
using scoring_progress = std::function<bool(std::size_t done, std::size_t tokens)>;

std::optional<scored_tokens> score_completions(const language_model& model,
                                               std::span<const row> rows,
                                               std::span<const prompt_completion> wanted,
                                               workers& on, const scoring_progress& done,
                                               bool adapted = true);

// The most that this holds at a time, of any prompts and completions of these rows.
std::size_t scoring_bytes(const language_model& model, std::span<const row> rows);

class reference_scores {
 public:
  // `rows` are those that `wanted` names, `model` what is measured against.
  reference_scores(const language_model& model, std::span<const row> rows,
                   std::vector<prompt_completion> wanted);

  // False where `done` ended it.
  bool compute(workers& on, const scoring_progress& done);

  // A file has a name of its own for each model and rows. `load` throws std::runtime_error with one
  // clear sentence for a file that is damaged or of other ones, and where some of its numbers,
  // which are computed again, differ: the file was written by a program that computed something
  // else.
  std::string file_name() const;
  void load(const std::filesystem::path& path, workers& on);
  void save(const std::filesystem::path& path) const;

  std::size_t size() const { return wanted_.size(); }
  double log_prob(const prompt_completion& of) const { return scored_.sum(places_.at(of)); }

 private:
  const language_model& model_;
  std::span<const row> rows_;
  std::vector<prompt_completion> wanted_;
  std::string key_;  // a hash of the model, its storage and all tokens
  std::map<prompt_completion, std::size_t> places_;
  scored_tokens scored_;
};

}  // namespace align
