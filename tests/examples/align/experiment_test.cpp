// A run that is stopped, goes on, starts again or has nothing to go on from. What a whole run finds
// takes an optimised build: see examples/align/CMakeLists.txt.
#include "experiment.hpp"

#include <algorithm>
#include <filesystem>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "catch.hpp"
#include "scratch.hpp"

using namespace align;

namespace {

/// Forty rows of a few words, both thumbs.
std::string few_thumbs() {
  std::string out;
  for (int i = 0; i < 40; ++i) {
    const std::string word{static_cast<char>('a' + i % 7), static_cast<char>('a' + i % 5)};
    out += "{\"prompt\": \"the film\", \"completion\": \"is " + word +
           "\", \"label\": " + (i % 2 == 0 ? "true" : "false") + "}\n";
  }
  return out;
}

struct stopped_run {
  std::string sentence, log;
};

/// Runs until `steps` steps are done; the sentence is that of the interruption, or of a refusal.
stopped_run run_for(const options& given, int steps) {
  std::ostringstream log;
  int asked = 0;
  stopped_run run;
  run.sentence = complaint([&] {
    run_experiment(
        given, "", [&] { return asked++ == steps; }, log);
  });
  run.log = log.str();
  return run;
}

std::size_t files_in(const std::filesystem::path& folder, const std::string& part) {
  std::size_t n = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    n += contains(entry.path().filename().string(), part) ? 1 : 0;
  }
  return n;
}

}  // namespace

TEST_CASE("a stopped run says how far it got, and goes on from there when asked to") {
  const scratch here;
  options given;
  given.data = here.write("mine.jsonl", few_thumbs()).string();
  given.out = here.folder() / "out";
  given.batch = 8;  // four steps in each pass over 32 train rows
  given.sft_epochs = 2;
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
  CHECK(contains(again.log, "starting again; the state of step 5 is kept in "));
  CHECK(files_in(given.out, ".previous") == 1);

  // A finished first stage is not trained again; the second goes on only when asked to.
  const stopped_run next = run_for(given, 8 + 2);
  CHECK(contains(next.sentence, "stopped at step 2 of 4 of seed 1 kto"));
  const stopped_run reused = run_for(given, 1);
  CHECK(contains(reused.log, "seed 1 next-token: step 8 of 8 from "));
  CHECK(contains(reused.log, "seed 1 kto: starting again; the state of step 2 is kept"));
  CHECK(contains(reused.sentence, "stopped at step 1 of 4 of seed 1 kto"));

  // Other settings are another run with nothing saved yet; the first stage is the same.
  options other = resumed;
  other.parameters = {{"beta", "0.5"}};
  const stopped_run different = run_for(other, 1);
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
  given.threads = 1;
  given.checkpoint_every = 2;
  // Before each step: which stages have left something by then?
  std::vector<std::pair<std::size_t, std::size_t>> saved;
  std::ostringstream log;
  const auto stop = [&] {
    saved.emplace_back(files_in(given.out, "sft-"), files_in(given.out, "align-"));
    return saved.size() == 5;
  };
  CHECK(contains(complaint([&] { run_experiment(given, "", stop, log); }),
                 "stopped at step 3 of 5 of seed 1 kto"));
  // One step of the first stage, then three of the second.
  using counts = std::vector<std::pair<std::size_t, std::size_t>>;
  CHECK(saved == counts{{0, 0}, {1, 0}, {1, 0}, {1, 1}, {1, 1}});
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
  const std::vector<finding> found = check_experiment(given);
  CHECK_FALSE(std::filesystem::exists(given.out));
  const auto says = [&](std::string_view part) {
    return std::ranges::any_of(found, [&](const finding& f) { return contains(f.sentence, part); });
  };
  CHECK(says("The train part has 32 rows"));
  CHECK(says("Cut 40 of 40 prompts to the last 3 tokens"));
  CHECK(says("answers the row's own prompt"));  // there is one prompt only
  given.loss = "ppo";
  CHECK(contains(complaint([&] { check_experiment(given); }), "there is no loss 'ppo'"));
}
