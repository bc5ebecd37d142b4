// See evaluate.hpp.
#include "evaluate.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "judge.hpp"
#include "random.hpp"
#include "stats.hpp"
#include "threads.hpp"

namespace align {
namespace {

constexpr std::size_t piece_rows = 32;
constexpr std::size_t sampled_prompts = 600;
constexpr std::size_t quoted_prompts = 6;
constexpr std::uint64_t sampling_seed = 600;  // the same for every run, so that runs compare

// Calls use(first, last) for pieces of `size` items, in parallel.
template <class Use>
void in_pieces(std::size_t size, int threads, const Use& use) {
  parallel((size + piece_rows - 1) / piece_rows, threads,
           [&](std::size_t i) { use(i * piece_rows, std::min(size, (i + 1) * piece_rows)); });
}

std::vector<double> log_probs_of(const language_model& model, const packed_batch& batch) {
  activations<float> memory;
  token_scores scores;
  forward<float>(model.shape, model.parameters, batch, memory);
  score(std::as_const(memory.normed_scored).view(), head_of(model.shape, model.parameters), batch,
        keep::nothing, scores);
  return std::move(scores.sequence);
}

struct draw {
  token word;
  double log_prob;
};

draw draw_word(std::span<const float> logits, random_source& random) {
  const double highest = *std::ranges::max_element(logits);
  std::vector<double> weights;
  weights.reserve(logits.size());
  for (const float x : logits) weights.push_back(std::exp(x - highest));
  const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  double left = random.uniform() * total;
  std::size_t word = 0;
  while (word + 1 < weights.size() && (left -= weights[word]) >= 0) ++word;
  return {static_cast<token>(word), std::log(weights[word] / total)};
}

// Writes the completions of a few prompts together, one word each per pass. Prefixes are read again
// for every word: simpler than a key-value cache, and cheap at this size.
void write_together(const language_model& model, std::span<const std::vector<token>> prompts,
                    std::uint64_t first_seed, std::span<sample> samples) {
  activations<float> memory;
  packed_batch batch;
  std::vector<random_source> random;
  std::vector<std::size_t> open(prompts.size());
  std::iota(open.begin(), open.end(), std::size_t{0});
  for (std::size_t i = 0; i < prompts.size(); ++i) random.emplace_back(first_seed + i);
  while (!open.empty()) {
    batch.clear();
    for (const std::size_t i : open) batch.append_open(prompts[i], samples[i].completion);
    forward<float>(model.shape, model.parameters, batch, memory);
    const row_major<float> next_word = logits<float>(model.shape, model.parameters, memory);
    for (std::size_t k = 0; k < open.size(); ++k) {
      sample& s = samples[open[k]];
      const auto row = static_cast<Eigen::Index>(k);
      const draw next = draw_word(
          {next_word.row(row).data(), static_cast<std::size_t>(next_word.cols())}, random[open[k]]);
      s.log_prob += next.log_prob;
      s.ended = next.word == vocabulary::end;
      if (!s.ended) s.completion.push_back(next.word);
    }
    std::erase_if(open, [&](std::size_t i) {
      return samples[i].ended || sequence_length(prompts[i].size(), samples[i].completion.size()) >=
                                     static_cast<std::size_t>(model.shape.context);
    });
  }
}

// Mean over sequences drawn from `model` of log p_model - log p_other.
double divergence(const language_model& other, std::span<const std::vector<token>> prompts,
                  std::span<const sample> samples, int threads) {
  std::vector<double> differences(samples.size());
  in_pieces(samples.size(), threads, [&](std::size_t first, std::size_t last) {
    packed_batch batch;
    for (std::size_t i = first; i < last; ++i) {
      std::vector<token> completion = samples[i].completion;
      if (samples[i].ended) completion.push_back(vocabulary::end);
      batch.append(prompts[i], completion);
    }
    const std::vector<double> scored = log_probs_of(other, batch);
    for (std::size_t i = first; i < last; ++i) {
      differences[i] = samples[i].log_prob - scored[i - first];
    }
  });
  return summarise(differences).mean;
}

double nll_per_token(std::span<const row> rows, std::span<const double> scored) {
  double tokens = 0;
  for (const row& r : rows) tokens += static_cast<double>(r.completion.size());
  return -std::accumulate(scored.begin(), scored.end(), 0.0) / tokens;
}

struct writing {
  double judged, length, true_reward;
};

writing assess(const dataset& data, const judge& critic,
               std::span<const std::vector<token>> prompts, std::span<const sample> samples) {
  std::vector<double> judged, length, reward;
  for (std::size_t i = 0; i < samples.size(); ++i) {
    const std::vector<token>& text = samples[i].completion;
    judged.push_back(critic.probability_desirable(text) > 0.5 ? 1 : 0);
    length.push_back(static_cast<double>(text.size()));
    if (data.true_reward) reward.push_back(data.true_reward(prompts[i], text));
  }
  return {summarise(judged).mean, summarise(length).mean, summarise(reward).mean};
}

}  // namespace

std::vector<double> log_probs(const language_model& model, std::span<const row> rows, int threads) {
  std::vector<double> all(rows.size());
  in_pieces(rows.size(), threads, [&](std::size_t first, std::size_t last) {
    packed_batch batch;
    for (const row& r : rows.subspan(first, last - first)) batch.append(r.prompt, r.completion);
    std::ranges::copy(log_probs_of(model, batch), all.begin() + static_cast<std::ptrdiff_t>(first));
  });
  return all;
}

std::vector<sample> write_completions(const language_model& model,
                                      std::span<const std::vector<token>> prompts,
                                      std::uint64_t seed, int threads) {
  std::vector<sample> samples(prompts.size());
  const std::uint64_t first_seed = random_source{seed}.next();
  in_pieces(prompts.size(), threads, [&](std::size_t first, std::size_t last) {
    write_together(model, prompts.subspan(first, last - first), first_seed + first,
                   std::span{samples}.subspan(first, last - first));
  });
  return samples;
}

evaluation evaluate(const language_model& reference, const language_model& aligned,
                    const dataset& data, const feedback& held_out, int threads) {
  const std::span rows{held_out.rows};
  const std::vector<double> before = log_probs(reference, rows, threads);
  const std::vector<double> after = log_probs(aligned, rows, threads);
  std::vector<double> liked, disliked;  // implicit rewards; their scale does not change a ranking
  for (std::size_t i = 0; i < rows.size(); ++i) {
    (rows[i].desirable ? liked : disliked).push_back(after[i] - before[i]);
  }

  std::vector<std::vector<token>> prompts;
  for (std::size_t i = 0; i < sampled_prompts; ++i) {
    prompts.push_back(rows[i % held_out.units()].prompt);
  }
  const auto by_reference = write_completions(reference, prompts, sampling_seed, threads);
  const auto by_aligned = write_completions(aligned, prompts, sampling_seed, threads);
  const judge critic(rows, data.text.vocabulary, data.text.end);
  const writing was = assess(data, critic, prompts, by_reference);
  const writing is = assess(data, critic, prompts, by_aligned);

  evaluation found;
  found.outcome.auc_aligned = auc(liked, disliked);
  found.outcome.auc_sampling_error =
      auc_standard_error(found.outcome.auc_aligned, liked.size(), disliked.size());
  found.outcome.nll_reference = nll_per_token(rows, before);
  found.outcome.nll_aligned = nll_per_token(rows, after);
  found.outcome.judged_reference = was.judged;
  found.outcome.judged_aligned = is.judged;
  found.outcome.length_reference = was.length;
  found.outcome.length_aligned = is.length;
  found.outcome.kl_aligned = divergence(reference, prompts, by_aligned, threads);
  found.outcome.true_reference = was.true_reward;
  found.outcome.true_aligned = is.true_reward;
  found.judge_accuracy = critic.accuracy(data.corpus);
  if (held_out.paired) {
    double right = 0;
    for (std::size_t i = 0; i < liked.size(); ++i) right += liked[i] > disliked[i] ? 1 : 0;
    found.pair_accuracy = right / static_cast<double>(liked.size());
  }
  for (std::size_t i = 0; data.quotable && i < quoted_prompts; ++i) {
    found.examples.push_back({data.text.decode(prompts[i]),
                              data.text.decode(by_reference[i].completion),
                              data.text.decode(by_aligned[i].completion)});
  }
  return found;
}

}  // namespace align
