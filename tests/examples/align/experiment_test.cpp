// A run that is stopped, goes on, starts again or has nothing to go on from. What a whole run finds
// takes an optimised build: see examples/align/CMakeLists.txt.
#include "experiment.hpp"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <iostream>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "catch.hpp"
#include "runs.hpp"

using namespace align;

TEST_CASE("a stopped run says how far it got, and goes on from there when asked to") {
  const scratch here;
  options given;
  given.data = here.write("mine.jsonl", few_thumbs()).string();
  given.out = here.folder() / "out";
  given.batch = 8;  // four steps in each pass over 32 train rows
  given.sft_epochs = 2;
  given.samples = 4;
  given.threads = 1;

  options resumed = given;
  resumed.resume = true;
  CHECK(contains(run_for(resumed, 0).sentence, "there is nothing to resume"));

  const stopped_run first = run_for(given, 3);
  CHECK(contains(first.sentence, "stopped at step 3 of 8 of seed 1 next-token; saved in "));
  CHECK(files_in(given.out, "sft-") == 1);

  const stopped_run second = run_for(resumed, 2);
  CHECK(contains(second.sentence, "stopped at step 5 of 8 of seed 1 next-token"));
  CHECK(contains(second.log, "seed 1 next-token: step 3 of 8 from "));

  // Not asked to, a run starts again and keeps what there was.
  const stopped_run again = run_for(given, 1);
  CHECK(contains(again.sentence, "stopped at step 1 of 8"));
  CHECK(contains(again.log, "starting again; what there was is kept in "));
  CHECK(files_in(given.out, ".previous") == 1);

  // A finished first stage is not trained again; the second goes on only when asked to.
  const stopped_run next = run_for(given, 8 + asked_between + 2);
  CHECK(contains(next.sentence, "stopped at step 2 of 4 of seed 1 kto"));
  const stopped_run reused = run_for(given, asked_between + 1);
  CHECK(contains(reused.log, "seed 1 next-token: step 8 of 8 from "));
  CHECK(contains(reused.log, "seed 1 kto: starting again; what there was is kept"));
  CHECK(contains(reused.sentence, "stopped at step 1 of 4 of seed 1 kto"));

  // Other settings are another run with nothing saved yet; the first stage is the same.
  options other = resumed;
  other.parameters = {{"beta", "0.5"}};
  const stopped_run different = run_for(other, asked_between + 1);
  CHECK(contains(different.log, "seed 1 kto: nothing is saved with these settings"));
  CHECK(contains(different.sentence, "stopped at step 1 of 4 of seed 1 kto"));
  other.sft_learning_rate = 1e-3;
  CHECK(contains(run_for(other, 1).sentence, "there is nothing to resume"));
}

TEST_CASE("steps may be given, and checkpoints are written every so many of them") {
  const scratch here;
  options given;
  given.data = here.write("mine.jsonl", few_thumbs()).string();
  given.out = here.folder() / "out";
  given.batch = 8;
  given.sft_epochs = 0.25;
  given.steps = 5;
  given.samples = 4;
  given.threads = 1;
  given.checkpoint_every = 2;
  // At each question: which stages have left something by then?
  std::vector<std::pair<std::size_t, std::size_t>> saved;
  std::ostringstream log;
  const auto stop = [&] {
    saved.emplace_back(files_in(given.out, "sft-"), files_in(given.out, "align-"));
    return saved.size() == 4 + asked_between + 1;
  };
  CHECK(contains(complaint([&] { run_experiment(given, "", stop, log); }),
                 "stopped at step 3 of 5 of seed 1 kto"));
  // One step of the first stage, what lies between, then three of the second.
  using counts = std::vector<std::pair<std::size_t, std::size_t>>;
  CHECK(saved == counts{{0, 0}, {1, 0}, {1, 0}, {1, 0}, {1, 0}, {1, 0}, {1, 1}, {1, 1}});
  given.sft_epochs = 1e9;
  CHECK(contains(run_for(given, 0).sentence, "that many epochs are more than 1e9 steps"));
}

TEST_CASE("what does not exist is refused before any work") {
  const scratch here;
  options given;
  given.loss = "ppo";
  given.out = here.folder() / "out";
  CHECK(contains(run_for(given, 0).sentence, "there is no loss 'ppo'"));
  CHECK_FALSE(std::filesystem::exists(given.out));
}

TEST_CASE("a check looks at the same feedback as the run, and leaves nothing behind") {
  const scratch here;
  options given;
  given.data = here.write("mine.jsonl", few_thumbs()).string();
  given.out = here.folder() / "out";
  given.batch = 8;
  given.max_prompt = 3;
  const std::vector<finding> found = check_experiment(given, std::clog);
  CHECK_FALSE(std::filesystem::exists(given.out));
  const auto says = [&](std::string_view part) {
    return std::ranges::any_of(found, [&](const finding& f) { return contains(f.sentence, part); });
  };
  CHECK(says("The train part has 32 rows"));
  CHECK(says("Cut 40 of 40 prompts to the last 3 tokens"));
  CHECK(says("answers the row's own prompt"));  // there is one prompt only
  given.loss = "ppo";
  CHECK(contains(complaint([&] { check_experiment(given, std::clog); }), "there is no loss 'ppo'"));
  given.lora_head = true;
  CHECK(
      contains(complaint([&] { check_experiment(given, std::clog); }), "--lora-head needs --lora"));
}

TEST_CASE("a phase between the stages that is stopped is named, and starts again") {
  const scratch here;
  options given;
  given.data = here.write("mine.jsonl", few_thumbs()).string();
  given.out = here.folder() / "out";
  given.batch = 8;
  given.sft_epochs = 0.25;
  given.samples = 4;
  given.threads = 1;
  CHECK(contains(run_for(given, 1).sentence, "stopped during the reference log-probabilities"));
  CHECK(contains(run_for(given, 1).sentence, "seed 1 before: held-out rows"));
  CHECK(contains(run_for(given, 2).sentence, "stopped during seed 1 before: samples"));
  CHECK(contains(run_for(given, 3 + 4).sentence, "stopped during seed 1 after: held-out rows"));
}

TEST_CASE("a whole run measures both models, however weights are stored and trained") {
  const scratch here;
  options given;
  given.data = here.write("mine.jsonl", few_thumbs()).string();
  given.out = here.folder() / "out";
  given.batch = 8;
  given.sft_epochs = 0.5;
  given.steps = 3;
  given.samples = 4;
  given.threads = 2;
  given.lora = GENERATE(0, 2);
  given.type = GENERATE("f32", "bf16");
  given.learning_rate = 0.01;
  CAPTURE(given.lora, given.type);
  const stopped_run run = run_whole(given);
  REQUIRE(run.sentence.empty());
  REQUIRE(run.report.seeds.size() == 1);
  const seed_outcome& found = run.report.seeds[0];
  CHECK(found.steps.size() == 3);
  CHECK_THAT(found.steps[0].loss, WithinAbs(0.5, 0.01));  // KTO's where both models are one
  // Where the reference were not what the run began with, these would agree.
  CHECK(std::abs(found.nll_aligned - found.nll_reference) > 1e-3);
  CHECK(std::abs(found.kl_aligned) > 1e-3);
  CHECK(std::isfinite(found.kl_aligned));
  CHECK(run.report.samples.size() == 4);
}
