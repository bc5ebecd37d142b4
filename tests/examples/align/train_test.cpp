// Training is reproducible bit for bit: from the seed, with any number of threads, and across an
// interruption; batches visit the data as they should.
#include "train.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <vector>

#include "catch.hpp"
#include "checkpoint.hpp"
#include "scratch.hpp"
#include "small_job.hpp"

using namespace align;

namespace {

const schedule short_plan{.steps = 10, .batch = 12, .learning_rate = 2e-3, .seed = 4};

// A moving average remembers earlier steps, so a checkpoint that forgets it would show.
objective remembering_kto() { return preference_objective({.reference_point = "ema:0.9"}); }

feedback rows_of(std::size_t desirable, std::size_t undesirable) {
  feedback data;
  for (std::size_t i = 0; i < desirable + undesirable; ++i) {
    data.rows.push_back({{4}, {5}, i < desirable});
  }
  return data;
}

}  // namespace

TEST_CASE("the same seed gives the same model, another seed another") {
  const small_job job = make_small_job(false);
  const objective goal = remembering_kto();
  const training_state once = train_on(job, goal, short_plan);
  CHECK((train_on(job, goal, short_plan).parameters == once.parameters));
  schedule other = short_plan;
  other.seed = 5;
  CHECK((train_on(job, goal, other).parameters != once.parameters));
  CHECK((once.parameters != job.start));
}

TEST_CASE("the number of threads changes no bit") {
  const bool paired = GENERATE(false, true);
  const small_job job = make_small_job(paired);
  const objective goal = preference_objective({.loss = paired ? "dpo" : "kto"});
  const training_state one = train_on(job, goal, short_plan, 1);
  for (const int threads : {2, 3, 8}) {
    const training_state many = train_on(job, goal, short_plan, threads);
    CHECK((many.parameters == one.parameters));
    CHECK(many.records.back().loss == one.records.back().loss);
  }
}

TEST_CASE("an interrupted run continues bit for bit") {
  const scratch files;
  const auto path = files.folder() / "run.checkpoint";
  const small_job job = make_small_job(false);
  const objective goal = remembering_kto();
  const training_state whole = train_on(job, goal, short_plan);

  training_state first{job.start};
  trainer before(job.shape, job.data, goal, short_plan, job.reference(), 2);
  CHECK_FALSE(before.run(
      first, [&] { return first.step == 4; }, [](const training_state&) {}));
  save_checkpoint(path, "settings", first);

  training_state second = load_checkpoint(path, "settings", job.start.size());
  CHECK(second.step == 4);
  trainer after(job.shape, job.data, goal, short_plan, job.reference(), 2);
  run_to_end(after, second);
  CHECK((second.parameters == whole.parameters));
  CHECK((second.optimiser.mean == whole.optimiser.mean));
  CHECK((second.optimiser.variance == whole.optimiser.variance));
  CHECK(second.memory.sum == whole.memory.sum);
  REQUIRE(second.records.size() == whole.records.size());
  for (std::size_t i = 0; i < whole.records.size(); ++i) {
    CHECK(second.records[i].step == static_cast<int>(i) + 1);
    CHECK(second.records[i].loss == whole.records[i].loss);
  }
}

TEST_CASE("mismatched rows are scored by the reference model, head included") {
  const small_job job = make_small_job(false);
  objective goal = preference_objective({.loss = "kto"});
  std::vector<double> scored;
  goal.evaluate = [&scored, evaluate = goal.evaluate](const scored_batch& batch,
                                                      point_memory& memory, std::span<double> d) {
    scored = batch.mismatched_reference;
    return evaluate(batch, memory, d);
  };
  train_on(job, goal, short_plan);  // by the last step the policy is another model

  const auto batches = batches_of_epoch(job.data, short_plan.batch, false, short_plan.seed, 0);
  const auto& last = batches[static_cast<std::size_t>(short_plan.steps - 1)];
  std::vector<row> mixed;
  for (std::size_t i = 0; i < last.size(); ++i) {
    const std::size_t other = last[*mismatched_row(i, last.size())];
    mixed.push_back({job.data.rows[last[i]].prompt, job.data.rows[other].completion, true});
  }
  const std::vector<double> expected = log_probs({job.shape, job.start}, mixed, 1);
  REQUIRE(scored.size() == expected.size());
  for (std::size_t i = 0; i < scored.size(); ++i) {
    CHECK_THAT(scored[i], WithinAbs(expected[i], 1e-4));
  }
}

TEST_CASE("the first step follows the gradient, whose length is cut to 1") {
  const small_job job = make_small_job(false);
  const auto first_mean = [&](double factor) {
    objective goal = next_token_objective();
    goal.evaluate = [factor, evaluate = goal.evaluate](const scored_batch& batch,
                                                       point_memory& memory, std::span<double> d) {
      const step_record record = evaluate(batch, memory, d);
      for (double& coefficient : d) coefficient *= factor;
      return record;
    };
    const schedule one{.steps = 1, .batch = 16, .learning_rate = 1e-3, .seed = 1};
    return train_on(job, goal, one).optimiser.mean;
  };
  const auto length = [](const aligned_vector<float>& mean) {
    double squares = 0;
    for (const float m : mean) squares += double{m} * m;
    return 10 * std::sqrt(squares);  // Adam's mean is a tenth of the first gradient
  };
  const double small = length(first_mean(1e-3));
  CHECK(small > 1e-5);
  CHECK(small < 1);
  CHECK_THAT(length(first_mean(2e-3)), WithinRel(2 * small, 1e-3));
  CHECK_THAT(length(first_mean(1e4)), WithinRel(1.0, 1e-3));
  CHECK_THAT(length(first_mean(1e5)), WithinRel(1.0, 1e-3));
}

TEST_CASE("pairs stay together: the rejected rows of a batch follow their chosen ones") {
  const small_job job = make_small_job(true);
  objective goal = preference_objective({.loss = "dpo"});
  std::vector<scored_batch> seen;
  goal.evaluate = [&seen, evaluate = goal.evaluate](const scored_batch& batch, point_memory& memory,
                                                    std::span<double> d) {
    seen.push_back(batch);
    return evaluate(batch, memory, d);
  };
  const schedule plan{.steps = 9, .batch = 12, .learning_rate = 1e-3, .seed = 3};
  const training_state state = train_on(job, goal, plan);
  REQUIRE(seen.size() == 9);
  const std::size_t per_epoch = batches_of_epoch(job.data, 12, false, 3, 0).size();
  for (std::size_t s = 0; s < seen.size(); ++s) {
    const auto batches = batches_of_epoch(job.data, 12, false, 3, static_cast<int>(s / per_epoch));
    const auto& pairs = batches[s % per_epoch];
    REQUIRE(seen[s].policy.size() == 2 * pairs.size());
    for (std::size_t i = 0; i < pairs.size(); ++i) {
      const std::size_t chosen = pairs[i], rejected = pairs[i] + job.data.units();
      const std::size_t j = pairs.size() + i;
      CHECK(seen[s].desirable[i] == 1);
      CHECK(seen[s].desirable[j] == 0);
      CHECK(seen[s].reference[i] == job.reference_log_probs[chosen]);
      CHECK(seen[s].reference[j] == job.reference_log_probs[rejected]);
      CHECK(seen[s].tokens[i] ==
            static_cast<std::int32_t>(job.data.rows[chosen].completion.size()));
      CHECK(seen[s].tokens[j] ==
            static_cast<std::int32_t>(job.data.rows[rejected].completion.size()));
    }
    CHECK(state.records[s].step == static_cast<int>(s) + 1);
    CHECK(state.records[s].tokens_per_second > 0);
  }
  // Before the first step policy and reference are one model.
  for (std::size_t i = 0; i < seen[0].policy.size(); ++i) {
    CHECK_THAT(seen[0].policy[i], WithinAbs(seen[0].reference[i], 1e-3));
  }
}

TEST_CASE("next-token training learns") {
  const small_job job = make_small_job(false);
  const objective goal = next_token_objective();
  const training_state state =
      train_on(job, goal, {.steps = 60, .batch = 16, .learning_rate = 5e-3, .seed = 2});
  CHECK(state.records.back().loss < 0.8 * state.records.front().loss);
}

TEST_CASE("a pass visits every row at most once and misses less than a batch") {
  const feedback data = rows_of(30, 23);
  std::multiset<std::size_t> seen;
  const auto batches = batches_of_epoch(data, 8, false, 1, 0);
  for (const auto& batch : batches) {
    CHECK(batch.size() == 8);
    seen.insert(batch.begin(), batch.end());
  }
  CHECK(batches.size() == 6);
  CHECK(std::set<std::size_t>(seen.begin(), seen.end()).size() == seen.size());
  CHECK(batches_of_epoch(data, 8, false, 1, 1) != batches);
  CHECK(batches_of_epoch(data, 8, false, 2, 0) != batches);
  CHECK(batches_of_epoch(data, 8, false, 1, 0) == batches);
}

TEST_CASE("a batch larger than the data takes all of it") {
  CHECK(batches_of_epoch(rows_of(3, 2), 32, false, 1, 0).front().size() == 5);
}

TEST_CASE("balanced batches hold both thumbs equally") {
  const feedback data = rows_of(9, 30);
  const auto batches = batches_of_epoch(data, 6, true, 1, 0);
  CHECK(batches.size() == 3);
  for (const auto& batch : batches) {
    CHECK(batch.size() == 6);
    CHECK(std::ranges::count_if(batch, [&](std::size_t i) { return data.rows[i].desirable; }) == 3);
  }
}

TEST_CASE("feedback that fills no batch is refused") {
  CHECK_THROWS_AS(batches_of_epoch(rows_of(0, 30), 6, true, 1, 0), std::invalid_argument);
  CHECK_THROWS_AS(batches_of_epoch({}, 6, false, 1, 0), std::invalid_argument);
}

TEST_CASE("a loss that is not finite stops the run with advice") {
  const small_job job = make_small_job(false);
  objective broken = next_token_objective();
  broken.evaluate = [](const scored_batch&, point_memory&, std::span<double> d) {
    std::ranges::fill(d, 0.0);
    return step_record{};  // its loss is NaN
  };
  CHECK(contains(complaint([&] { train_on(job, broken, short_plan); }), "smaller learning rate"));
}
