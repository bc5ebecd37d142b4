// The figures of a comparison from their definitions, and texts that a model writes.
#include "evaluate.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

#include "catch.hpp"
#include "judge.hpp"
#include "small_job.hpp"
#include "stats.hpp"

using namespace align;

namespace {

/// A policy some steps away from the reference.
aligned_vector<float> moved(const small_job& job) {
  const schedule plan{.steps = 12, .batch = 16, .learning_rate = 4e-3, .seed = 2};
  return train_on(job, preference_objective({.loss = job.data.paired ? "dpo" : "kto"}), plan)
      .parameters;
}

/// What a model gives a text, cut off or not.
double log_prob_of(const language_model& model, const std::vector<token>& prompt, const sample& s) {
  packed_batch batch;
  std::vector<token> completion = s.completion;
  if (s.ended) completion.push_back(vocabulary::end);
  batch.append(prompt, completion);
  activations<float> memory;
  token_scores scores;
  forward<float>(model.shape, model.parameters, batch, memory);
  score(std::as_const(memory.normed_scored).view(), head_of(model.shape, model.parameters), batch,
        keep::nothing, scores);
  return scores.sequence[0];
}

std::vector<std::vector<token>> prompts_of(const feedback& data, std::size_t count) {
  std::vector<std::vector<token>> prompts;
  for (std::size_t i = 0; i < count; ++i) prompts.push_back(data.rows[i % data.units()].prompt);
  return prompts;
}

}  // namespace

TEST_CASE("log-probabilities of rows do not depend on their company") {
  const small_job job = make_small_job(false);
  const language_model model{job.shape, job.start};
  const std::span rows = std::span{job.data.rows}.first(70);  // more than two pieces
  const std::vector<double> all = log_probs(model, rows, 3);
  REQUIRE(all.size() == 70);
  for (const std::size_t i : {0U, 31U, 32U, 63U, 64U, 69U}) {
    CAPTURE(i);
    CHECK_THAT(log_probs(model, rows.subspan(i, 1), 1)[0], WithinRel(all[i], 1e-5));
  }
  CHECK(log_probs(model, {}, 2).empty());
}

TEST_CASE("a written text has the probability that the model gives it") {
  const small_job job = make_small_job(false);
  const language_model model{job.shape, job.start};
  const auto prompts = prompts_of(job.data, 40);
  const std::vector<sample> samples = write_completions(model, prompts, 7, 2);
  REQUIRE(samples.size() == 40);
  std::size_t ended = 0;
  for (std::size_t i = 0; i < samples.size(); ++i) {
    const sample& s = samples[i];
    CAPTURE(i, s.ended);
    CHECK_THAT(s.log_prob, WithinRel(log_prob_of(model, prompts[i], s), 1e-4));
    CHECK(std::ranges::count(s.completion, vocabulary::end) == 0);
    const std::size_t length = sequence_length(prompts[i].size(), s.completion.size());
    CHECK(length <= static_cast<std::size_t>(job.shape.context));
    CHECK((s.ended || length == static_cast<std::size_t>(job.shape.context)));
    ended += s.ended ? 1 : 0;
  }
  CHECK(ended > 0);
}

TEST_CASE("a text depends on its place and the seed, not on its company or the threads") {
  const small_job job = make_small_job(false);
  const language_model model{job.shape, job.start};
  const auto prompts = prompts_of(job.data, 40);
  const auto all = write_completions(model, prompts, 7, 1);
  const auto same = write_completions(model, prompts, 7, 3);
  const auto few = write_completions(model, std::span{prompts}.first(3), 7, 1);
  const auto other = write_completions(model, prompts, 8, 1);
  std::size_t different = 0;
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    CHECK(all[i].completion == same[i].completion);
    different += all[i].completion != other[i].completion ? 1 : 0;
  }
  for (std::size_t i = 0; i < 3; ++i) CHECK(all[i].completion == few[i].completion);
  CHECK(different > 20);
  // The same prompt in two places gives two texts.
  const std::vector<std::vector<token>> twins(12, prompts[0]);
  const auto twice = write_completions(model, twins, 7, 1);
  CHECK(std::ranges::any_of(twice,
                            [&](const sample& s) { return s.completion != twice[0].completion; }));
}

TEST_CASE("the figures of a comparison are those of their definitions") {
  const bool paired = GENERATE(false, true);
  CAPTURE(paired);
  const small_job job = make_small_job(paired);
  const aligned_vector<float> policy = moved(job);
  const language_model reference{job.shape, job.start}, aligned{job.shape, policy};
  const dataset data = synthetic_feedback(paired, {.train = 200, .held_out = 40});
  const feedback held_out{paired ? split_duels(data.held_out.duels) : data.held_out.rows, paired};
  const evaluation found = evaluate(reference, aligned, data, held_out, 2);
  const seed_outcome& o = found.outcome;

  const std::vector<double> before = log_probs(reference, held_out.rows, 1);
  const std::vector<double> after = log_probs(aligned, held_out.rows, 1);
  std::vector<double> liked, disliked;
  double tokens = 0, nll_before = 0, nll_after = 0;
  for (std::size_t i = 0; i < before.size(); ++i) {
    (held_out.rows[i].desirable ? liked : disliked).push_back(after[i] - before[i]);
    tokens += static_cast<double>(held_out.rows[i].completion.size());
    nll_before -= before[i];
    nll_after -= after[i];
  }
  CHECK(o.auc_reference == 0.5);
  CHECK(o.kl_reference == 0);
  CHECK_THAT(o.auc_aligned, WithinAbs(auc(liked, disliked), 1e-12));
  CHECK_THAT(o.auc_sampling_error,
             WithinRel(auc_standard_error(o.auc_aligned, liked.size(), disliked.size()), 1e-12));
  CHECK_THAT(o.nll_reference, WithinRel(nll_before / tokens, 1e-9));
  CHECK_THAT(o.nll_aligned, WithinRel(nll_after / tokens, 1e-9));

  if (paired) {
    double right = 0;
    for (std::size_t i = 0; i < liked.size(); ++i) right += liked[i] > disliked[i] ? 1 : 0;
    CHECK_THAT(found.pair_accuracy, WithinAbs(right / static_cast<double>(liked.size()), 1e-12));
  } else {
    CHECK(std::isnan(found.pair_accuracy));
  }

  if (paired) return;  // what both write is measured in the same way

  // The seed and the number of texts are the program's own, but what it wrote can be asked for.
  const auto prompts = prompts_of(held_out, 600);
  const auto wrote = write_completions(aligned, prompts, 600, 2);
  const auto wrote_before = write_completions(reference, prompts, 600, 2);
  const judge critic(held_out.rows, data.text.vocabulary, data.text.end);
  const auto mean = [&](const std::vector<sample>& samples, const auto& of) {
    double sum = 0;
    for (std::size_t i = 0; i < samples.size(); ++i) sum += of(prompts[i], samples[i].completion);
    return sum / static_cast<double>(samples.size());
  };
  const auto size = [](const auto&, const auto& text) { return static_cast<double>(text.size()); };
  const auto judged = [&](const auto&, const auto& text) {
    return critic.probability_desirable(text) > 0.5 ? 1.0 : 0.0;
  };
  CHECK_THAT(o.length_aligned, WithinRel(mean(wrote, size), 1e-12));
  CHECK_THAT(o.length_reference, WithinRel(mean(wrote_before, size), 1e-12));
  CHECK_THAT(o.judged_aligned, WithinAbs(mean(wrote, judged), 1e-12));
  CHECK_THAT(o.judged_reference, WithinAbs(mean(wrote_before, judged), 1e-12));
  CHECK_THAT(o.true_aligned, WithinRel(mean(wrote, data.true_reward), 1e-12));
  CHECK_THAT(o.true_reference, WithinRel(mean(wrote_before, data.true_reward), 1e-12));
  double difference = 0;
  for (std::size_t i = 0; i < wrote.size(); ++i) {
    difference += wrote[i].log_prob - log_prob_of(reference, prompts[i], wrote[i]);
  }
  CHECK(o.kl_aligned > 0);
  CHECK_THAT(o.kl_aligned, WithinRel(difference / 600, 1e-4));
  CHECK_THAT(found.judge_accuracy, WithinAbs(critic.accuracy(data.corpus), 1e-12));

  REQUIRE(found.examples.size() == 6);
  CHECK(found.examples[5].prompt == data.text.decode(prompts[5]));
  CHECK(found.examples[5].reference == data.text.decode(wrote_before[5].completion));
  CHECK(found.examples[5].aligned == data.text.decode(wrote[5].completion));
}

TEST_CASE("a model is as good as itself, and offensive texts are not quoted") {
  const small_job job = make_small_job(false);
  const language_model model{job.shape, job.start};
  dataset data = synthetic_feedback(false, {.train = 200, .held_out = 40});
  data.quotable = false;
  data.true_reward = nullptr;
  const evaluation found = evaluate(model, model, data, {data.held_out.rows, false}, 2);
  CHECK(found.examples.empty());
  CHECK(std::isnan(found.outcome.true_reference));
  CHECK(std::isnan(found.outcome.true_aligned));
  CHECK(found.outcome.auc_aligned == 0.5);
  CHECK_THAT(found.outcome.kl_aligned, WithinAbs(0, 1e-3));
  CHECK(found.outcome.nll_aligned == found.outcome.nll_reference);
  CHECK(found.outcome.length_aligned == found.outcome.length_reference);
}
