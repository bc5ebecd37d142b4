// The figures of a comparison from their definitions.
#include "evaluation/evaluate.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <string>
#include <vector>

#include "../small_job.hpp"
#include "catch.hpp"
#include "evaluation/judge.hpp"
#include "evaluation/stats.hpp"

using namespace align;

namespace {

const evaluation_plan sixty_texts{.samples = 60, .longest_sample = 25};

bool never_ends(std::string_view, std::size_t, std::size_t, std::size_t) { return true; }

// A policy some steps away from the reference.
language_model moved(const small_job& job) {
  const schedule plan{.steps = 12, .batch = 16, .learning_rate = 4e-3, .seed = 2};
  return train_on(job, preference_objective({.loss = job.data.paired ? "dpo" : "kto"}), plan).model;
}

// One text at a time.
std::vector<double> direct_log_probs(const language_model& model, std::span<const row> rows) {
  workers on{1};
  scoring_pass pass(model.storage());
  std::vector<double> sums;
  for (const row& r : rows) {
    packed_batch batch;
    batch.append(r.prompt, r.completion);
    sums.push_back(pass.score(model, batch, purpose::evaluation, on)[0]);
  }
  return sums;
}

std::vector<row> written_rows(const measured_model& of) {
  std::vector<row> rows;
  for (std::size_t i = 0; i < of.samples.size(); ++i) {
    rows.push_back({of.prompts[i], of.samples[i].completion});
  }
  return rows;
}

void check_close(const std::vector<double>& found, const std::vector<double>& expected) {
  REQUIRE(found.size() == expected.size());
  for (std::size_t i = 0; i < found.size(); ++i) {
    REQUIRE_THAT(found[i], WithinRel(expected[i], 1e-5));
  }
}

// Pairs by the lengths of their completions, (chosen, rejected).
std::vector<row> pairs_of_lengths(const std::vector<std::pair<std::size_t, std::size_t>>& lengths) {
  std::vector<row> rows(2 * lengths.size());
  for (std::size_t i = 0; i < lengths.size(); ++i) {
    rows[i].completion.resize(lengths[i].first);
    rows[i + lengths.size()].completion.resize(lengths[i].second);
  }
  return rows;
}

}  // namespace

TEST_CASE("what is measured of a model is what it gives and what it writes") {
  const small_job job = make_small_job(false);
  const language_model model = job.model();
  const dataset data = synthetic_feedback(false, {.train = 200, .held_out = 40});
  const feedback held_out{data.held_out.rows, false};
  workers on{2};
  const auto made = measure(model, data, held_out, sixty_texts, on, never_ends);
  REQUIRE(made.has_value());
  check_close(made->log_probs, direct_log_probs(model, held_out.rows));
  REQUIRE(made->prompts.size() == 60);  // more than there are rows: from the first one again
  for (std::size_t i = 0; i < 60; ++i) CHECK(made->prompts[i] == held_out.rows[i % 40].prompt);
  REQUIRE(made->samples.size() == 60);
  for (const sample& s : made->samples) {
    CHECK((s.ended || s.completion.size() == 25));
    CHECK(s.ended == (s.completion.back() == data.text.end));
  }
  const auto again = measure(model, data, held_out, sixty_texts, on, never_ends);
  for (std::size_t i = 0; i < 60; ++i) {
    CHECK(again->samples[i].completion == made->samples[i].completion);
  }
  const auto scored = sample_log_probs(model, *made, on, never_ends);
  REQUIRE(scored.has_value());
  check_close(*scored, direct_log_probs(model, written_rows(*made)));
}

TEST_CASE("a model with adapters can be asked without them") {
  const small_job job = make_small_job(true);
  const schedule plan{.steps = 5, .batch = 16, .learning_rate = 1e-2, .seed = 2};
  const language_model model =
      train_on(job, preference_objective({.loss = "dpo"}), plan, 2, lora_f32).model;
  const dataset data = synthetic_feedback(true, {.train = 200, .held_out = 40});
  const feedback held_out{split_duels(data.held_out.duels), true};
  workers on{2};
  const auto made = measure(model, data, held_out, sixty_texts, on, never_ends);
  const auto without = sample_log_probs(model, *made, on, never_ends, false);
  check_close(*without, direct_log_probs(job.model(), written_rows(*made)));
  const auto with = sample_log_probs(model, *made, on, never_ends);
  CHECK(std::abs((*with)[0] - (*without)[0]) > 1e-3);
}

TEST_CASE("measuring tells how far it is, and ends where it is told to") {
  const small_job job = make_small_job(false);
  const language_model model = job.model();
  const dataset data = synthetic_feedback(false, {.train = 200, .held_out = 40});
  const feedback held_out{data.held_out.rows, false};
  workers on{2};
  std::string phases;
  std::size_t last = 0, total = 0;
  const auto shown = [&](std::string_view phase, std::size_t done, std::size_t of, std::size_t) {
    if (!phases.ends_with(phase)) phases += std::string{phase};
    CHECK(done <= of);
    last = done;
    total = of;
    return true;
  };
  CHECK(measure(model, data, held_out, sixty_texts, on, shown).has_value());
  CHECK(phases == "held-out rowssamples");
  CHECK(last == 60);
  CHECK(total == 60);
  for (const std::string_view end : {"held-out rows", "samples"}) {
    const auto ends = [&](std::string_view phase, std::size_t, std::size_t, std::size_t) {
      return phase != end;
    };
    CHECK_FALSE(measure(model, data, held_out, sixty_texts, on, ends).has_value());
  }
}

TEST_CASE("the figures of a comparison are those of their definitions") {
  const bool paired = GENERATE(false, true);
  CAPTURE(paired);
  const small_job job = make_small_job(paired);
  const language_model reference = job.model(), aligned = moved(job);
  const dataset data = synthetic_feedback(paired, {.train = 200, .held_out = 40});
  const feedback held_out{paired ? split_duels(data.held_out.duels) : data.held_out.rows, paired};
  workers on{2};
  const measured_model was = *measure(reference, data, held_out, sixty_texts, on, never_ends);
  const measured_model is = *measure(aligned, data, held_out, sixty_texts, on, never_ends);
  const evaluation found = compare(was, is, data, held_out, sixty_texts);
  const seed_outcome& o = found.outcome;

  const std::vector<double> before = direct_log_probs(reference, held_out.rows);
  const std::vector<double> after = direct_log_probs(aligned, held_out.rows);
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
  CHECK_THAT(o.nll_reference, WithinRel(nll_before / tokens, 1e-6));
  CHECK_THAT(o.nll_aligned, WithinRel(nll_after / tokens, 1e-6));

  if (paired) {
    double right = 0;
    for (std::size_t i = 0; i < liked.size(); ++i) right += liked[i] > disliked[i] ? 1 : 0;
    CHECK(o.pairs == liked.size());
    CHECK_THAT(o.pairs_right, WithinAbs(right / static_cast<double>(liked.size()), 1e-12));
    CHECK(std::isfinite(o.pairs_right_at_equal_length));
    CHECK(std::isfinite(o.pairs_shorter_right));
  } else {
    CHECK(o.pairs == 0);
    CHECK(std::isnan(o.pairs_right));
  }

  const judge critic(held_out.rows, data.text.vocabulary, data.text.end);
  const auto mean = [&](const measured_model& wrote, const auto& of) {
    double sum = 0;
    for (std::size_t i = 0; i < 60; ++i) {
      std::vector<token> text = wrote.samples[i].completion;
      std::erase(text, data.text.end);
      sum += of(wrote.prompts[i], text);
    }
    return sum / 60;
  };
  const auto size = [](const auto&, const auto& text) { return static_cast<double>(text.size()); };
  const auto judged = [&](const auto&, const auto& text) {
    return critic.probability_desirable(text) > 0.5 ? 1.0 : 0.0;
  };
  CHECK_THAT(o.length_aligned, WithinRel(mean(is, size), 1e-12));
  CHECK_THAT(o.length_reference, WithinRel(mean(was, size), 1e-12));
  CHECK_THAT(o.judged_aligned, WithinAbs(mean(is, judged), 1e-12));
  CHECK_THAT(o.judged_reference, WithinAbs(mean(was, judged), 1e-12));
  CHECK_THAT(o.true_aligned, WithinRel(mean(is, data.true_reward), 1e-12));
  CHECK_THAT(o.true_reference, WithinRel(mean(was, data.true_reward), 1e-12));
  CHECK_THAT(found.judge_accuracy, WithinAbs(critic.accuracy(data.corpus), 1e-12));

  REQUIRE(found.examples.size() == 6);
  CHECK(found.examples[5].prompt == data.text.decode(is.prompts[5]));
  CHECK(found.examples[5].reference == data.text.decode(was.samples[5].completion));
  CHECK(found.examples[5].aligned == data.text.decode(is.samples[5].completion));
}

TEST_CASE("a model is as good as itself, and offensive texts are not quoted") {
  const small_job job = make_small_job(false);
  dataset data = synthetic_feedback(false, {.train = 200, .held_out = 40});
  data.quotable = false;
  data.true_reward = nullptr;
  const feedback held_out{data.held_out.rows, false};
  workers on{2};
  const measured_model made = *measure(job.model(), data, held_out, sixty_texts, on, never_ends);
  const evaluation found = compare(made, made, data, held_out, sixty_texts);
  CHECK(found.examples.empty());
  CHECK(std::isnan(found.outcome.true_reference));
  CHECK(std::isnan(found.outcome.true_aligned));
  CHECK(found.outcome.auc_aligned == 0.5);
  CHECK(found.outcome.nll_aligned == found.outcome.nll_reference);
  CHECK(found.outcome.length_aligned == found.outcome.length_reference);
}

TEST_CASE("pairs are ranked by their rewards, ties half") {
  const auto rows = pairs_of_lengths({{3, 3}, {3, 3}, {3, 3}, {3, 3}});
  const std::vector<double> rewards{2, 0, 1, 5, 1, 1, 1, 9};
  const pair_ranking found = rank_pairs(rows, rewards);  // right, wrong, tie, wrong
  CHECK(found.pairs == 4);
  CHECK(found.right == 0.375);
  CHECK(found.right_at_equal_length == 0.375);  // all are as long as their partners
  CHECK(found.shorter_is_right == 0.5);
}

TEST_CASE("repetition is the share of three tokens in a row that were there before") {
  CHECK(repetition(std::vector<token>{5, 6, 7, 5, 6, 7, 8}) == 0.2);  // 567 of 567 675 756 567 678
  CHECK(repetition(std::vector<token>{5, 5, 5, 5}) == 0.5);
  CHECK(repetition(std::vector<token>{5, 6, 7, 8}) == 0);
  CHECK(repetition(std::vector<token>{5, 6}) == 0);
}

TEST_CASE("the shorter answer's share counts pairs of equal lengths half") {
  const auto rows = pairs_of_lengths({{2, 5}, {4, 1}, {3, 3}, {1, 2}, {6, 7}});
  CHECK(rank_pairs(rows, std::vector<double>(10)).shorter_is_right == 0.7);
}

TEST_CASE("a reward that is proportional to length is worth nothing at equal length") {
  const auto rows = pairs_of_lengths({{2, 1}, {8, 4}, {1, 5}, {16, 8}});
  std::vector<double> rewards;
  for (const row& r : rows) rewards.push_back(0.25 * static_cast<double>(r.completion.size()));
  const pair_ranking found = rank_pairs(rows, rewards);
  CHECK(found.right == 0.75);
  CHECK(found.right_at_equal_length == 0.5);
  CHECK(found.shorter_is_right == 0.25);
}

TEST_CASE("at equal length it is what length does not explain that ranks a pair") {
  // Margins 4, 1, 0.5 at 2, 1, -1 tokens more: the slope is 8.5 / 6, which leaves 1.17, -0.42 and
  // 1.92.
  const auto rows = pairs_of_lengths({{3, 1}, {2, 1}, {1, 2}});
  const pair_ranking found = rank_pairs(rows, std::vector<double>{4, 1, 0.5, 0, 0, 0});
  CHECK(found.right == 1);
  CHECK_THAT(found.right_at_equal_length, WithinRel(2.0 / 3, 1e-12));
}

TEST_CASE("without pairs nothing is ranked") {
  const pair_ranking found = rank_pairs({}, {});
  CHECK(found.pairs == 0);
  CHECK(std::isnan(found.right));
}
