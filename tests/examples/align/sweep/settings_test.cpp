// The sweep's command line and the runs it asks for.
#include "sweep/settings.hpp"

#include "../scratch.hpp"
#include "catch.hpp"
#include "sweep/grid.hpp"

using namespace align;

namespace {

sweep_settings parsed(std::vector<const char*> words) { return parse_sweep(words); }
std::string refusal(std::vector<const char*> words) {
  return complaint([&] { parse_sweep(words); });
}

}  // namespace

TEST_CASE("nothing given is the sweep of the small model") {
  const sweep_settings s = parsed({});
  REQUIRE(s.losses.size() == 3);
  CHECK(s.losses[0].name == "kto");
  CHECK(s.losses[0].parameter == "beta");
  CHECK(!s.losses[0].paired);
  CHECK(s.losses[2].name == "ipo");
  CHECK(s.losses[2].parameter == "tau");  // it has no beta
  CHECK(s.losses[2].paired);
  CHECK(s.values.size() == 23);
  CHECK(s.seeds == 5);
  CHECK(s.jobs >= 1);
  CHECK(s.own_pairs);
  CHECK(runs_of(s).size() == 3 * 23 * 5);
}

TEST_CASE("a model of a file asks for less, one run at a time") {
  const sweep_settings s = parsed({"--", "--model", "m.gguf", "--data", "d.jsonl"});
  CHECK(s.losses.size() == 2);
  CHECK(s.values.size() == 3);
  CHECK(s.seeds == 3);
  CHECK(s.jobs == 1);
  CHECK(!s.own_pairs);
}

TEST_CASE("runs are told apart by folder and command, and told the same of everything else") {
  const sweep_settings s =
      parsed({"--losses", "kto,simple-kto,dpo,kto", "--betas", "0.05,0.1", "--seeds", "2", "--seed",
              "7", "--jobs", "3", "--out", "o", "--", "--lr", "0.01", "--epochs=2"});
  const std::vector<sweep_run> runs = runs_of(s);
  REQUIRE(runs.size() == 12);
  CHECK(runs[0].json == "o/kto-beta-0.05/seed-7.json");
  CHECK(runs[1].log == "o/simple-kto-beta-0.05/seed-7.log");
  CHECK(runs[11].html == "o/dpo-beta-0.1/seed-8.html");
  CHECK(runs[0].folder == "o/kto-beta-0.05/seed-7");
  CHECK(runs[0].start == "o/start-of-seed-7");
  CHECK(runs[2].start == "o/start-of-seed-7-pairs");  // synthetic pairs are other texts
  CHECK(runs[11].command == "examples/run --lr 0.01 --epochs=2 --loss dpo --beta 0.1 --seed 8");
  CHECK(name_of(runs[11]) == "dpo, beta 0.1, seed 8");
  const std::vector<std::string> words = arguments_of(runs[0], s, true);
  CHECK(words.front() == "--lr");
  CHECK(words.back() == "--resume");
  CHECK(arguments_of(runs[0], s, false).back() == "o/kto-beta-0.05/seed-7.html");
  // Thumbs and pairs of a file have one corpus.
  const std::vector<sweep_run> of_file = runs_of(parsed({"--out", "o", "--", "--data", "d"}));
  for (const sweep_run& run : of_file) CHECK(!contains(run.start.string(), "pairs"));
}

TEST_CASE("any parameter can be swept") {
  const sweep_settings s = parsed(
      {"--losses", "kto", "--parameter", "desirable-weight", "--values", "1,1.5", "--seeds", "1"});
  CHECK(runs_of(s)[1].command == "examples/run --loss kto --desirable-weight 1.5 --seed 1");
  CHECK(contains(refusal({"--losses", "dpo", "--parameter", "desirable_weight"}),
                 "the loss dpo has no parameter desirable_weight; it has beta"));
}

TEST_CASE("figures of the feedback and the training can be swept too") {
  const sweep_settings s = parsed({"--losses", "ipo,kto", "--parameter", "drop-desirable",
                                   "--values", "0,0.8", "--seeds", "1", "--out", "o"});
  CHECK(s.losses[0].parameter == "drop_desirable");
  CHECK(runs_of(s)[3].command == "examples/run --loss kto --drop-desirable 0.8 --seed 1");
  CHECK(runs_of(s)[3].json == "o/kto-drop-desirable-0.8/seed-1.json");
  CHECK(contains(refusal({"--parameter", "flip", "--values", "2"}), "--flip"));
  CHECK(contains(refusal({"--parameter", "flip", "--values", "0.1", "--", "--flip", "0.2"}),
                 "--flip is what is swept"));
}

TEST_CASE("a loss stands beside itself with another parameter") {
  const sweep_settings s =
      parsed({"--losses", "dpo,dpo:label-smoothing=0.2:beta=0.3", "--parameter", "flip", "--values",
              "0.1", "--seeds", "1", "--out", "o"});
  REQUIRE(s.losses.size() == 2);
  CHECK(s.losses[1].name == "dpo:label_smoothing=0.2:beta=0.3");
  CHECK(s.losses[1].paired);
  const std::vector<sweep_run> runs = runs_of(s);
  CHECK(runs[0].folder == "o/dpo-flip-0.1/seed-1");
  CHECK(runs[1].folder == "o/dpo-label-smoothing-0.2-beta-0.3-flip-0.1/seed-1");
  CHECK(runs[1].command ==
        "examples/run --loss dpo --set label_smoothing=0.2 --set beta=0.3 --flip 0.1 --seed 1");
  CHECK(parsed({"--losses", "dpo:label-smoothing=1e-3"}).losses[0].set ==
        std::vector<std::string>{"label_smoothing=1e-3"});
  CHECK(contains(refusal({"--losses", "dpo:label_smoothing=2"}), "label_smoothing"));
  CHECK(contains(refusal({"--losses", "dpo:smoothing=0.2"}), "smoothing"));
  CHECK(contains(refusal({"--losses", "dpo:beta=0.2"}), "beta is what is swept"));
  CHECK(contains(refusal({"--losses", "kot:beta=0.2"}), "there is no loss 'kot'"));
}

TEST_CASE("a mistake is told before the first run") {
  CHECK(contains(refusal({"--losses", "kot"}), "there is no loss 'kot'"));
  CHECK(contains(refusal({"--betas", "0,0.1"}), "beta must be positive"));
  CHECK(contains(refusal({"--betas"}), "--values needs a value"));
  CHECK(contains(refusal({"--seeds", "0"}), "--seeds"));
  CHECK(contains(refusal({"--lr", "1"}), "'--lr' is no option of the sweep"));
  CHECK(contains(refusal({"--", "--lrr", "1"}), "did you mean --lr"));
  CHECK(contains(refusal({"--", "--beta", "0.3"}), "--beta is what is swept"));
  for (const char* taken : {"--loss=dpo", "--out=x", "--resume", "--seeds=2", "--json=j"}) {
    CAPTURE(taken);
    CHECK(contains(refusal({"--", taken}), "the sweep says it for every run"));
  }
}

TEST_CASE("a folder keeps to the arguments of its first sweep") {
  const scratch here;
  const std::string out = here.folder().string();
  const auto claim = [&](const char* rate) {
    return complaint([&] { claim_folder(parsed({"--out", out.c_str(), "--", "--lr", rate})); });
  };
  CHECK(claim("0.01").empty());
  CHECK(claim("0.01").empty());
  CHECK(contains(claim("0.02"), "other arguments for the trainer (--lr 0.01)"));
  CHECK(contains(complaint([&] { claim_folder(parsed({"--out", out.c_str()})); }), "--lr 0.01"));
}

TEST_CASE("help says what follows --") {
  CHECK(parsed({"--help"}).help);
  for (const char* part : {"--losses NAMES", "--values,--betas LIST", "--list", " -- "}) {
    CAPTURE(part);
    CHECK(contains(sweep_help(), part));
  }
}
