// Choosing a loss by name: every listed one is made, everything else is refused by a sentence that
// lists what there is.
#include "objective.hpp"

#include "catch.hpp"
#include "scratch.hpp"

using namespace align;

TEST_CASE("every known loss can be made, with every parameter it lists") {
  const auto losses = known_losses();
  CHECK(losses.size() >= 8);
  for (const loss_description& loss : losses) {
    CAPTURE(loss.name);
    const objective goal = preference_objective({loss.name, loss.parameters, ""});
    CHECK(goal.paired == loss.paired);
    CHECK_FALSE(loss.parameters.empty());
  }
}

TEST_CASE("only a loss with a reference point asks for mismatched rows") {
  CHECK(preference_objective({.loss = "kto"}).mismatched);
  CHECK(preference_objective({.loss = "kto", .reference_point = "ema:0.9"}).mismatched);
  CHECK(preference_objective({.loss = "kto", .reference_point = "pooled"}).mismatched);
  CHECK_FALSE(preference_objective({.loss = "kto", .reference_point = "zero"}).mismatched);
  CHECK_FALSE(preference_objective({.loss = "kto", .reference_point = "constant:-0.5"}).mismatched);
  CHECK_FALSE(preference_objective({.loss = "kto_zero"}).mismatched);
  CHECK_FALSE(preference_objective({.loss = "dpo"}).mismatched);
  CHECK(preference_objective({.loss = "simple_kto"}).balanced);
  CHECK(preference_objective({.loss = "kto", .reference_point = "cross_class"}).balanced);
}

TEST_CASE("what does not exist is refused by name, with what does") {
  const auto refusal = [](const loss_choice& choice) {
    return complaint([&] { preference_objective(choice); });
  };
  CHECK(contains(refusal({.loss = "ppo"}), "there is no loss 'ppo'; there are dpo, "));
  CHECK(contains(refusal({.loss = "dpo", .parameters = {{"tau", 1}}}),
                 "the loss dpo has no parameter 'tau'; it has beta, label_smoothing"));
  CHECK(contains(refusal({.loss = "kto", .parameters = {{"beta", -1}}}), "beta must be positive"));
  for (const char* point : {"ema", "ema:x", "zero:1", "klx", "constant:"}) {
    CHECK(contains(refusal({.loss = "kto", .reference_point = point}),
                   "'" + std::string{point} + "'; there are kl, "));
  }
  CHECK(contains(refusal({.loss = "kto", .reference_point = "ema:1.5"}), "decay"));
  CHECK(contains(refusal({.loss = "dpo", .reference_point = "kl"}), "no reference point"));
  CHECK(contains(refusal({.loss = "kto_zero", .reference_point = "kl"}), "no reference point"));
}

TEST_CASE("reference points remember what they should") {
  scored_batch batch{.policy = {-1, -2},
                     .reference = {-1, -2},
                     .desirable = {1, 0},
                     .tokens = {1, 1},
                     .mismatched_policy = {-1, -1},
                     .mismatched_reference = {-3, -5}};
  std::vector<double> d(2);
  const auto z_after = [&](const char* point, int steps) {
    const objective goal = preference_objective({.loss = "kto", .reference_point = point});
    point_memory memory;
    double z = 0;
    for (int i = 0; i < steps; ++i) {
      z = goal.evaluate(batch, memory, d).z;
      for (double& reference : batch.mismatched_reference) reference = 2 * reference;
    }
    batch.mismatched_reference = {-3, -5};
    return z;
  };
  CHECK(z_after("kl", 1) == 3);  // mean of 2 and 4
  CHECK(z_after("kl", 2) == 7);  // mean of 5 and 9
  CHECK(z_after("pooled", 2) == 5);
  CHECK_THAT(z_after("ema:0.5", 2), WithinRel((0.25 * 3 + 0.5 * 7) / 0.75, 1e-12));
  CHECK(z_after("zero", 2) == 0);
  CHECK(z_after("constant:-0.5", 2) == -0.5);
}

TEST_CASE("advised weights make up for the counts") {
  const weight_advice scarce = advise_weights(100, 1000);
  CHECK_THAT(scarce.desirable * 100 / (scarce.undesirable * 1000), WithinRel(4.0 / 3, 1e-12));
  CHECK(contains(scarce.explanation, "100 desirable and 1000 undesirable"));
  CHECK(contains(scarce.explanation, "10 : 1 to 13.3333 : 1"));
  CHECK(contains(scarce.explanation, "15 : 1"));
  const weight_advice balanced = advise_weights(110, 100);
  CHECK(balanced.desirable == 1);
  CHECK(balanced.undesirable == 1);
}
