// What a run starts from, as the options ask for it.
#include "job.hpp"

#include <limits>

#include "catch.hpp"
#include "scratch.hpp"

using namespace align;

TEST_CASE("a part of a batch holds as many rows, or pairs, as the option says") {
  options given;
  given.micro_batch = 4;
  given.batch = 8;
  given.loss = GENERATE("kto", "dpo");
  const bool paired = given.loss == "dpo";
  const job from = prepare(given, nullptr, 1);
  const schedule plan = alignment_plan(given, from, 1);
  CHECK(plan.batch == 8);
  CHECK(plan.together == (paired ? 8 : 4));
  const std::size_t sequences = paired ? 16 : 8;
  CHECK(parts_of(sequences, plan).size() == 2);
}

TEST_CASE("the plan is what the options say") {
  options given;
  given.steps = 7;
  given.learning_rate = 0.25;
  given.schedule = "constant";
  given.warm_up = 0.5;
  given.weight_decay = 0.125;
  given.clip = 3;
  given.recompute = true;
  const job from = prepare(given, nullptr, 1);
  schedule plan = alignment_plan(given, from, 9);
  CHECK(plan.steps == 7);
  CHECK(plan.learning_rate == 0.25);
  CHECK(plan.shape == decline::constant);
  CHECK(plan.warm_up == 0.5);
  CHECK(plan.weight_decay == 0.125);
  CHECK(plan.longest_gradient == 3);
  CHECK(plan.recompute);
  CHECK(plan.seed == 9);
  given.clip = 0;
  CHECK(alignment_plan(given, from, 9).longest_gradient == std::numeric_limits<double>::infinity());
}
