// Choosing a loss by name: every listed one is made, everything else is refused by a sentence that
// lists what there is; and what each makes of log-probabilities.
#include "objective.hpp"

#include <cmath>
#include <span>
#include <string>
#include <vector>

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
    CHECK(loss.parameters.empty() == (loss.name == "sft"));
  }
}

TEST_CASE("only a loss with a reference point asks for mismatched rows") {
  CHECK(preference_objective({.loss = "kto"}).mismatched);
  CHECK(preference_objective({.loss = "kto", .reference_point = "ema:0.9"}).mismatched);
  CHECK(preference_objective({.loss = "kto", .reference_point = "pooled"}).mismatched);
  CHECK_FALSE(preference_objective({.loss = "kto", .reference_point = "zero"}).mismatched);
  CHECK_FALSE(preference_objective({.loss = "kto", .reference_point = "constant:-0.5"}).mismatched);
  CHECK_FALSE(preference_objective({.loss = "kto_zero"}).mismatched);
  CHECK_FALSE(preference_objective({.loss = "bco"}).mismatched);  // its own rows' mean
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
  CHECK(contains(refusal({.loss = "tpo"}), "tpo needs a gold completion"));
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
  batch.policy = {-2, -4};  // log-ratios -1 and -2
  CHECK(z_after("running", 1) == -1.5);
  CHECK(z_after("running", 3) == -1.5);
  batch.policy = batch.reference;
  CHECK(z_after("zero", 2) == 0);
  CHECK(z_after("constant:-0.5", 2) == -0.5);
}

TEST_CASE("a step's record and coefficients are those of the formula") {
  std::vector<double> d(2);
  point_memory memory;
  // Next token: -(-3 - 5) / 8 tokens, and the same slope for every sequence.
  const step_record words =
      next_token_objective().evaluate({.policy = {-3, -5}, .tokens = {2, 6}}, memory, d);
  CHECK(words.loss == 1);
  CHECK(d == std::vector{-0.125, -0.125});
  CHECK(std::isnan(words.z));

  // Of what was liked alone: -(-3) / 2 tokens; where nothing was, nothing is learnt.
  const objective sft = preference_objective({.loss = "sft"});
  CHECK_FALSE(sft.mismatched);
  const step_record liked = sft.evaluate(
      {.policy = {-3, -5}, .reference = {-4, -4}, .desirable = {1, 0}, .tokens = {2, 6}}, memory,
      d);
  CHECK(liked.loss == 1.5);
  CHECK(d == std::vector{-0.5, 0.0});
  CHECK(
      sft.evaluate({.policy = {-5}, .desirable = {0}, .tokens = {6}}, memory, std::span{d}.first(1))
          .loss == 0);
  CHECK(d[0] == 0);

  // One pair, log-ratios 2 and -3: DPO's margin is 0.5.
  const scored_batch pair{
      .policy = {-10, -20}, .reference = {-12, -17}, .desirable = {1, 0}, .tokens = {5, 6}};
  const step_record dpo = preference_objective({.loss = "dpo"}).evaluate(pair, memory, d);
  CHECK_THAT(dpo.loss, WithinRel(std::log1p(std::exp(-0.5)), 1e-12));
  CHECK_THAT(d[0], WithinRel(-0.1 / (1 + std::exp(0.5)), 1e-12));
  CHECK(d[1] == -d[0]);
  CHECK_THAT(dpo.reward_desirable, WithinRel(0.2, 1e-12));
  CHECK_THAT(dpo.reward_undesirable, WithinRel(-0.3, 1e-12));
  CHECK_THAT(dpo.margin, WithinRel(0.5, 1e-12));
  CHECK(std::isnan(dpo.z));
  // With the chosen completion's likelihood, over its 5 tokens.
  const step_record rpo = preference_objective({.loss = "rpo"}).evaluate(pair, memory, d);
  CHECK_THAT(rpo.loss, WithinRel(std::log1p(std::exp(-0.5)) + 2, 1e-12));
  CHECK_THAT(d[0], WithinRel(-0.1 / (1 + std::exp(0.5)) - 0.2, 1e-12));

  // The same two as thumbs, measured from z = 1: the observed -4 would be clamped.
  const step_record kto = preference_objective({.loss = "kto", .reference_point = "constant:1"})
                              .evaluate(pair, memory, d);
  const double up = 1 / (1 + std::exp(0.1 * (2 - 1))), down = 1 / (1 + std::exp(0.1 * (1 + 3)));
  CHECK_THAT(kto.loss, WithinRel((up + down) / 2, 1e-12));
  CHECK_THAT(d[0], WithinRel(-0.1 * up * (1 - up) / 2, 1e-12));
  CHECK_THAT(d[1], WithinRel(0.1 * down * (1 - down) / 2, 1e-12));
  CHECK(kto.z == 1);
  CHECK_THAT(kto.margin, WithinRel(0.5, 1e-12));
  scored_batch observed = pair;
  observed.mismatched_policy = {-9, -9};
  observed.mismatched_reference = {-7, -3};
  const step_record clamped = preference_objective({.loss = "kto"}).evaluate(observed, memory, d);
  CHECK(clamped.z == 0);
  CHECK(clamped.z_raw == -4);

  // A class that is absent is not measured, and neither is what it enters.
  const scored_batch ups{
      .policy = {-10, -20}, .reference = {-12, -17}, .desirable = {1, 1}, .tokens = {5, 6}};
  const step_record one_class = preference_objective({.loss = "kto_zero"}).evaluate(ups, memory, d);
  CHECK_THAT(one_class.reward_desirable, WithinRel(-0.05, 1e-12));
  CHECK(std::isnan(one_class.reward_undesirable));
  CHECK(std::isnan(one_class.margin));
}

TEST_CASE("a row's stand-in is the next one, and a batch of one has none") {
  CHECK(mismatched_row(0, 3) == std::size_t{1});
  CHECK(mismatched_row(2, 3) == std::size_t{0});
  CHECK_FALSE(mismatched_row(0, 1).has_value());
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
