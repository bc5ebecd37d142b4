// See evaluate.hpp.
#include "evaluation/evaluate.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <set>
#include <utility>

#include "evaluation/judge.hpp"
#include "evaluation/stats.hpp"
#include "training/reference.hpp"

namespace align {
namespace {

constexpr std::uint64_t sampling_seed = 600;  // the same for every run, so that runs compare

std::optional<std::vector<double>> log_probs(const language_model& model, std::span<const row> rows,
                                             workers& on, const evaluation_progress& shown,
                                             std::string_view phase, bool adapted = true) {
  std::vector<prompt_completion> own;
  for (std::size_t i = 0; i < rows.size(); ++i) own.push_back({i, i});
  const auto scored = score_completions(
      model, rows, own, on,
      [&](std::size_t done, std::size_t tokens) { return shown(phase, done, own.size(), tokens); },
      adapted);
  if (!scored) return {};
  std::vector<double> sums;
  for (std::size_t i = 0; i < rows.size(); ++i) sums.push_back(scored->sum(i));
  return sums;
}

double nll_per_token(std::span<const row> rows, std::span<const double> scored) {
  double tokens = 0;
  for (const row& r : rows) tokens += static_cast<double>(r.completion.size());
  return -std::accumulate(scored.begin(), scored.end(), 0.0) / tokens;
}

struct writing {
  double judged, length, true_reward, repetition;
};

// Without its end.
std::vector<token> text_of(const sample& s) {
  return {s.completion.begin(), s.completion.end() - (s.ended ? 1 : 0)};
}

writing assess(const dataset& data, const judge& critic, const measured_model& of) {
  std::vector<double> judged, length, reward, repeated;
  for (std::size_t i = 0; i < of.samples.size(); ++i) {
    const std::vector<token> text = text_of(of.samples[i]);
    judged.push_back(critic.probability_desirable(text) > 0.5 ? 1 : 0);
    length.push_back(static_cast<double>(text.size()));
    repeated.push_back(repetition(text));
    if (data.true_reward) reward.push_back(data.true_reward(of.prompts[i], text));
  }
  return {summarise(judged).mean, summarise(length).mean, summarise(reward).mean,
          summarise(repeated).mean};
}

double won(double margin) { return margin > 0 ? 1 : margin == 0 ? 0.5 : 0; }

}  // namespace

std::optional<measured_model> measure(const language_model& model, const dataset& data,
                                      const feedback& held_out, const evaluation_plan& plan,
                                      workers& on, const evaluation_progress& shown) {
  measured_model made;
  auto scored = log_probs(model, held_out.rows, on, shown, "held-out rows");
  if (!scored) return {};
  made.log_probs = std::move(*scored);
  for (std::size_t i = 0; i < plan.samples; ++i) {
    made.prompts.push_back(held_out.rows[i % held_out.units()].prompt);
  }
  bool finished = true;
  made.samples = write_completions(
      model, made.prompts,
      {.longest = plan.longest_sample, .end = data.text.end, .seed = sampling_seed}, on,
      [&](std::size_t done, std::size_t tokens) {
        return finished = shown("samples", done, made.prompts.size(), tokens);
      });
  if (!finished) return {};
  return made;
}

std::optional<std::vector<double>> sample_log_probs(const language_model& model,
                                                    const measured_model& wrote, workers& on,
                                                    const evaluation_progress& shown,
                                                    bool adapted) {
  std::vector<row> rows;
  for (std::size_t i = 0; i < wrote.samples.size(); ++i) {
    rows.push_back({.prompt = wrote.prompts[i], .completion = wrote.samples[i].completion});
  }
  return log_probs(model, rows, on, shown, "what was written", adapted);
}

double repetition(std::span<const token> text) {
  std::set<std::array<token, 3>> known;
  double repeated = 0, all = 0;
  for (std::size_t i = 0; i + 3 <= text.size(); ++i) {
    repeated += known.insert({text[i], text[i + 1], text[i + 2]}).second ? 0 : 1;
    all += 1;
  }
  return all > 0 ? repeated / all : 0;
}

pair_ranking rank_pairs(std::span<const row> rows, std::span<const double> rewards) {
  pair_ranking found;
  found.pairs = rows.size() / 2;
  std::vector<double> margins, longer;
  double along = 0, square = 0;
  for (std::size_t i = 0; i < found.pairs; ++i) {
    const std::size_t j = i + found.pairs;
    margins.push_back(rewards[i] - rewards[j]);
    longer.push_back(static_cast<double>(rows[i].completion.size()) -
                     static_cast<double>(rows[j].completion.size()));
    along += margins[i] * longer[i];
    square += longer[i] * longer[i];
  }
  const double slope = square > 0 ? along / square : 0;
  std::vector<double> right, level, shorter;
  for (std::size_t i = 0; i < found.pairs; ++i) {
    right.push_back(won(margins[i]));
    level.push_back(won(margins[i] - slope * longer[i]));
    shorter.push_back(won(-longer[i]));
  }
  found.right = summarise(right).mean;
  found.right_at_equal_length = summarise(level).mean;
  found.shorter_is_right = summarise(shorter).mean;
  return found;
}

evaluation compare(const measured_model& reference, const measured_model& aligned,
                   const dataset& data, const feedback& held_out, const evaluation_plan& plan) {
  const std::span rows{held_out.rows};
  std::vector<double> rewards;  // implicit; their scale does not change a ranking
  std::vector<double> liked, disliked;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    rewards.push_back(aligned.log_probs[i] - reference.log_probs[i]);
    (rows[i].desirable ? liked : disliked).push_back(rewards[i]);
  }
  const judge critic(rows, data.text.vocabulary, data.text.end);
  const writing was = assess(data, critic, reference);
  const writing is = assess(data, critic, aligned);

  evaluation found;
  found.outcome.auc_aligned = auc(liked, disliked);
  found.outcome.auc_sampling_error =
      auc_standard_error(found.outcome.auc_aligned, liked.size(), disliked.size());
  found.outcome.nll_reference = nll_per_token(rows, reference.log_probs);
  found.outcome.nll_aligned = nll_per_token(rows, aligned.log_probs);
  found.outcome.judged_reference = was.judged;
  found.outcome.judged_aligned = is.judged;
  found.outcome.length_reference = was.length;
  found.outcome.length_aligned = is.length;
  found.outcome.true_reference = was.true_reward;
  found.outcome.true_aligned = is.true_reward;
  found.judge_accuracy = critic.accuracy(data.corpus);
  found.outcome.repetition_reference = was.repetition;
  found.outcome.repetition_aligned = is.repetition;
  if (held_out.paired) {
    const pair_ranking ranking = rank_pairs(rows, rewards);
    found.outcome.pairs = ranking.pairs;
    found.outcome.pairs_right = ranking.right;
    found.outcome.pairs_right_at_equal_length = ranking.right_at_equal_length;
    found.outcome.pairs_shorter_right = ranking.shorter_is_right;
  }
  const std::size_t quoted = std::min(plan.quoted, aligned.samples.size());
  for (std::size_t i = 0; data.quotable && i < quoted; ++i) {
    found.examples.push_back({data.text.decode(aligned.prompts[i]),
                              data.text.decode(reference.samples[i].completion),
                              data.text.decode(aligned.samples[i].completion)});
  }
  return found;
}

}  // namespace align
