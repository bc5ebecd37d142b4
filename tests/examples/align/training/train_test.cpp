// Training is reproducible bit for bit: from the seed, with any number of threads, and across an
// interruption; a batch in parts is the same batch; the optimiser's settings do what they say.
#include "training/train.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "../scratch.hpp"
#include "../small_job.hpp"
#include "catch.hpp"
#include "training/checkpoint.hpp"

using namespace align;

namespace {

const schedule short_plan{.steps = 10, .batch = 12, .learning_rate = 2e-3, .seed = 4};

// A moving average remembers earlier steps, so a checkpoint that forgets it would show.
objective remembering_kto() { return preference_objective({.reference_point = "ema:0.9"}); }

objective scaled(objective goal, double factor) {
  goal.evaluate = [factor, evaluate = goal.evaluate](const scored_batch& batch,
                                                     point_memory& memory, std::span<double> d) {
    const step_record record = evaluate(batch, memory, d);
    for (double& coefficient : d) coefficient *= factor;
    return record;
  };
  return goal;
}

}  // namespace

TEST_CASE("the same seed gives the same model, another seed another") {
  const small_job job = make_small_job(false);
  const objective goal = remembering_kto();
  const trained_model once = train_on(job, goal, short_plan);
  CHECK((train_on(job, goal, short_plan).trained == once.trained));
  schedule other = short_plan;
  other.seed = 5;
  CHECK((train_on(job, goal, other).trained != once.trained));
  CHECK((once.trained != job.start));
}

TEST_CASE("the number of threads changes no bit") {
  const bool paired = GENERATE(false, true);
  const small_job job = make_small_job(paired);
  const objective goal = preference_objective({.loss = paired ? "dpo" : "kto"});
  const trained_model one = train_on(job, goal, short_plan, 1);
  for (const int threads : {2, 3, 8}) {
    const trained_model many = train_on(job, goal, short_plan, threads);
    CHECK((many.trained == one.trained));
    CHECK(many.state.records.back().loss == one.state.records.back().loss);
  }
}

TEST_CASE("the number of threads changes no bit of adapters, nor of what is stored as bf16") {
  const model_kind kind = GENERATE(lora_f32, full_bf16, lora_bf16, lora_head_bf16);
  const small_job job = make_small_job(false);
  const objective goal = preference_objective({.loss = "kto"});
  const trained_model one = train_on(job, goal, short_plan, 1, kind);
  CHECK((train_on(job, goal, short_plan, 3, kind).trained == one.trained));
}

TEST_CASE("an interrupted run continues bit for bit") {
  const model_kind kind = GENERATE(full_f32, lora_f32, full_bf16, lora_bf16, lora_head_bf16);
  const scratch files;
  const auto path = files.folder() / "run.checkpoint";
  const small_job job = make_small_job(false);
  const objective goal = remembering_kto();
  const trained_model uninterrupted = train_on(job, goal, short_plan, 2, kind);
  workers on{2};

  language_model first = job.model(kind);
  const reference_scores reference = reference_of(job, first, goal, short_plan, on);
  training_state before{first.trained().size()};
  trainer train(first, job.data, goal, short_plan, &reference, on);
  CHECK_FALSE(train.run(
      before, [&] { return before.step == 4; }, [](const training_state&) {}));
  save_checkpoint(path, "settings", first.trained(), before);

  language_model second = job.model(kind);
  const reference_scores again = reference_of(job, second, goal, short_plan, on);
  training_state after = load_checkpoint(path, "settings", second.trained());
  second.renew();
  CHECK(after.step == 4);
  trainer go_on_training(second, job.data, goal, short_plan, &again, on);
  run_to_end(go_on_training, after);
  CHECK(std::ranges::equal(second.trained(), uninterrupted.trained));
  const training_state& expected = uninterrupted.state;
  CHECK((after.optimiser.mean == expected.optimiser.mean));
  CHECK((after.optimiser.variance == expected.optimiser.variance));
  CHECK(after.memory.sum == expected.memory.sum);
  REQUIRE(after.records.size() == expected.records.size());
  for (std::size_t i = 0; i < expected.records.size(); ++i) {
    CHECK(after.records[i].step == static_cast<int>(i) + 1);
    CHECK(after.records[i].loss == expected.records[i].loss);
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
  packed_batch mixed;
  for (std::size_t i = 0; i < last.size(); ++i) {
    const std::size_t other = last[*mismatched_row(i, last.size())];
    mixed.append(job.data.rows[last[i]].prompt, job.data.rows[other].completion);
  }
  workers on{1};
  scoring_pass pass(storage_type::f32);
  const auto expected = pass.score(job.model(), mixed, purpose::evaluation, on);
  REQUIRE(scored.size() == expected.size());
  for (std::size_t i = 0; i < scored.size(); ++i) {
    CHECK_THAT(scored[i], WithinAbs(expected[i], 1e-4));
  }
}

TEST_CASE("the first step follows the gradient, whose length is cut where the plan says") {
  const small_job job = make_small_job(false);
  const auto first_mean = [&](double factor, double longest) {
    const schedule one{
        .steps = 1, .batch = 16, .learning_rate = 1e-3, .seed = 1, .longest_gradient = longest};
    return train_on(job, scaled(next_token_objective(), factor), one).state.optimiser.mean;
  };
  const auto length = [](const aligned_vector<float>& mean) {
    double squares = 0;
    for (const float m : mean) squares += double{m} * m;
    return 10 * std::sqrt(squares);  // Adam's mean is a tenth of the first gradient
  };
  const double small = length(first_mean(1e-3, 1));
  CHECK(small > 1e-5);
  CHECK(small < 1);
  CHECK_THAT(length(first_mean(2e-3, 1)), WithinRel(2 * small, 1e-3));
  CHECK_THAT(length(first_mean(1e4, 1)), WithinRel(1.0, 1e-3));
  CHECK_THAT(length(first_mean(1e5, 1)), WithinRel(1.0, 1e-3));
  CHECK_THAT(length(first_mean(1e4, 0.25)), WithinRel(0.25, 1e-3));
  constexpr double never = std::numeric_limits<double>::infinity();
  CHECK_THAT(length(first_mean(1e4, never)), WithinRel(1e7 * small, 1e-3));
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
  const training_state state = train_on(job, goal, plan).state;
  const language_model start = job.model();
  workers on{2};
  const reference_scores reference = reference_of(job, start, goal, plan, on);
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
      CHECK(seen[s].reference[i] == reference.log_prob({chosen, chosen}));
      CHECK(seen[s].reference[j] == reference.log_prob({rejected, rejected}));
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

TEST_CASE("next-token training learns, whatever is trained and however it is stored") {
  const model_kind kind = GENERATE(full_f32, full_bf16, lora_f32, lora_bf16);
  const small_job job = make_small_job(false);
  // All rows in every batch, so that no order hides what is learnt. The start has seen little, and
  // behind embeddings and a head that are frozen there is little to be done about it.
  const bool frozen = kind.lora.rank > 0;
  const schedule plan{.steps = 12, .batch = 200, .learning_rate = frozen ? 2e-2 : 1e-2, .seed = 2};
  const auto records = train_on(job, next_token_objective(), plan, 2, kind).state.records;
  CHECK(records.back().loss < (frozen ? 0.999 : 0.9) * records.front().loss);
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

TEST_CASE("a batch in parts is the same batch") {
  const std::string loss = GENERATE("kto", "dpo", "simple_kto", "bco");
  const model_kind kind = GENERATE(full_f32, lora_f32);
  CAPTURE(loss, kind.lora.rank);
  small_job job = make_small_job(loss == "dpo");
  const objective goal = preference_objective({.loss = loss});
  schedule plan{.steps = 1,
                .batch = 12,
                .learning_rate = 1e-3,
                .seed = 4,
                .longest_gradient = std::numeric_limits<double>::infinity()};
  const trained_model at_once = train_on(job, goal, plan, 2, kind);
  for (const int together : {1, 5, 6}) {
    plan.together = together;
    const trained_model in_parts = train_on(job, goal, plan, 2, kind);
    CHECK(relative_difference(in_parts.state.optimiser.mean, at_once.state.optimiser.mean) < 1e-6);
    CHECK_THAT(in_parts.state.records[0].loss, WithinRel(at_once.state.records[0].loss, 1e-6));
  }
}

TEST_CASE("what is computed again in the backward pass changes no bit") {
  const model_kind kind = GENERATE(full_f32, full_bf16, lora_f32, lora_bf16, lora_head_bf16);
  const small_job job = make_small_job(true);
  const objective goal = preference_objective({.loss = "dpo"});
  schedule plan = short_plan;
  const trained_model kept = train_on(job, goal, plan, 2, kind);
  plan.recompute = true;
  CHECK((train_on(job, goal, plan, 2, kind).trained == kept.trained));
}

TEST_CASE("decay draws every number towards 0 by the rate of its step, and does nothing else") {
  const small_job job = make_small_job(false);
  const objective nothing = scaled(next_token_objective(), 0);
  const schedule plan{.steps = 6,
                      .batch = 12,
                      .learning_rate = 0.02,
                      .seed = 1,
                      .warm_up = 0.5,
                      .shape = decline::constant,
                      .weight_decay = 2};
  const trained_model made = train_on(job, nothing, plan);
  // A third of the rate, two thirds, and then all of it.
  const double kept = (1 - 0.04 / 3) * (1 - 0.08 / 3) * std::pow(1 - 0.04, 4);
  std::vector<double> expected;
  for (const float p : job.start) expected.push_back(kept * double{p});
  CHECK(relative_difference(made.trained, expected) < 1e-6);
}

TEST_CASE("training adapters leaves the model that they stand beside untouched") {
  const model_kind kind = GENERATE(lora_f32, lora_bf16, lora_head_bf16);
  const small_job job = make_small_job(false);
  const trained_model made =
      train_on(job, preference_objective({.loss = "kto"}), short_plan, 2, kind);
  const language_model start = job.model(kind);
  CHECK(made.model.fingerprint() == start.fingerprint());
  CHECK_FALSE(std::ranges::equal(made.trained, start.trained()));
  // Where no adapter stands beside a weight, the merged model has it as it was.
  for (const weight_place& place : weights_of(job.shape)) {
    std::vector<float> now(place.size()), before(place.size());
    made.model.read(place, 0, now);
    start.read(place, 0, before);
    CAPTURE(place.name);
    const bool beside = (place.name.starts_with("blk.") && !contains(place.name, "norm")) ||
                        (kind.lora.head && place.name == "output.weight");
    CHECK((now != before) == beside);
  }
}

TEST_CASE("a preference loss falls, whatever is trained and however it is stored") {
  const model_kind kind = GENERATE(full_f32, full_bf16, lora_f32, lora_bf16, lora_head_bf16);
  const small_job job = make_small_job(true);
  const double rate = kind.lora.rank > 0 ? 2e-2 : 2e-3;
  const schedule plan{.steps = 12, .batch = 100, .learning_rate = rate, .seed = 2};
  const training_state state =
      train_on(job, preference_objective({.loss = "dpo"}), plan, 2, kind).state;
  CHECK_THAT(state.records.front().loss, WithinAbs(std::log(2.0), 1e-3));
  CHECK(state.records.back().loss < 0.685);
  CHECK(state.records.back().margin > 0.01);
}
