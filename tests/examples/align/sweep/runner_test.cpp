// Many runs of a trainer that is a shell script: what is started, skipped, resumed, and what comes
// of one that fails or hangs.
#include "sweep/runner.hpp"

#include <cmath>
#include <sstream>

#include "../scratch.hpp"
#include "catch.hpp"
#include "sweep/process.hpp"

namespace fs = std::filesystem;
using namespace align;

namespace {

// Notes its arguments, then does what `body` says. finish writes the JSON of a finished run.
constexpr const char* trainer = R"sh(#!/bin/sh
echo "$*" >> "HERE/calls"
while [ $# -gt 0 ]; do
  case $1 in
    --json) json=$2 ;;
    --loss) loss=$2 ;;
    --seed) seed=$2 ;;
    --out) out=$2 ;;
    --resume) resumed=1 ;;
  esac
  shift
done
finish() {
  echo state > "$out/sft-1.checkpoint"
  echo state > "$out/align-1.checkpoint"
  echo "{\"command\": \"$ALIGN_COMMAND\", \"data\": \"d\", \"warnings\": [\"DRIFT: x\"],
    \"seeds\": [{\"seed\": $seed, \"auc_aligned\": 0.6, \"nll_reference\": 1, \"nll_aligned\": 1.5,
    \"true_aligned\": null, \"steps\": []}]}" > "$json"
}
echo one; echo two
)sh";

struct world {
  scratch here;
  sweep_settings settings;
  std::vector<sweep_run> runs;
  std::ostringstream log = {};

  world(std::vector<const char*> words, const std::string& body) {
    const std::string out = (here.folder() / "out").string();
    words.insert(words.end(), {"--out", out.c_str()});
    settings = parse_sweep(words);
    settings.trainer = here.folder() / "trainer";
    behave(body);
    runs = runs_of(settings);
  }

  void behave(const std::string& body) const {
    std::string script = trainer;
    script.replace(script.find("HERE"), 4, here.folder().string());
    here.write("trainer", script + body + "\n");
    fs::permissions(settings.trainer, fs::perms::owner_all);
  }

  sweep_result run(const std::function<bool()>& stop = [] { return false; }) {
    return run_all(settings, runs, stop, log);
  }

  std::vector<std::string> calls() const {
    std::vector<std::string> lines;
    std::istringstream in(scratch::read(here.folder() / "calls"));
    for (std::string line; std::getline(in, line);) lines.push_back(line);
    return lines;
  }
};

const std::vector<const char*> small = {"--losses", "kto,dpo", "--betas", "0.1,0.2",
                                        "--seeds",  "2",       "--jobs",  "2"};

}  // namespace

TEST_CASE("every run is run once, and one of a seed before its others") {
  world w(small, "finish");
  const sweep_result result = w.run();
  CHECK(result.outcomes.size() == 8);
  CHECK(result.failed == 0);
  CHECK(result.left == 0);
  CHECK(result.outcomes[0].figure("nll_drift") == 0.5);
  CHECK(std::isnan(result.outcomes[0].figure("true_aligned")));
  CHECK(verdict_of(result.outcomes[0].warnings.at(0)) == "DRIFT");
  const std::vector<std::string> calls = w.calls();
  CHECK(calls.size() == 8);
  std::size_t resumed = 0;
  for (const std::string& call : calls) resumed += contains(call, "--resume") ? 1u : 0u;
  CHECK(resumed == 4);  // thumbs and pairs of two seeds begin; the others start from their models
  CHECK(contains(w.log.str(), "[8 of 8] "));
  // What serves all is kept, what served one is not.
  CHECK(scratch::read(w.runs[0].start / "sft-1.checkpoint") == "state\n");
  CHECK(!fs::exists(w.runs[0].start / "align-1.checkpoint"));
  CHECK(!fs::exists(w.runs[0].folder));
  CHECK(contains(w.log.str(), "AUC 0.600, NLL +0.50, DRIFT"));
}

TEST_CASE("what is finished is not run again, what is broken or another's is") {
  world w(small, "finish");
  w.run();
  fs::remove(w.here.folder() / "calls");
  CHECK(w.run().outcomes.size() == 8);
  CHECK(!fs::exists(w.here.folder() / "calls"));

  const std::string whole = scratch::read(w.runs[0].json);
  std::ofstream(w.runs[0].json) << whole.substr(0, whole.size() / 2);
  std::ofstream(w.runs[1].json) << scratch::read(w.runs[2].json);
  CHECK(w.run().outcomes.size() == 8);
  CHECK(w.calls().size() == 2);
  CHECK(contains(w.calls()[0], "--resume"));
}

TEST_CASE("more values later leave the finished ones alone") {
  world w(small, "finish");
  w.run();
  w.settings.values = parse_values("0.1,0.2,0.3");
  w.runs = runs_of(w.settings);
  CHECK(w.run().outcomes.size() == 12);
  CHECK(w.calls().size() == 12);
}

TEST_CASE("a run that fails is told with the end of its log, and the others go on") {
  world w(small, R"([ "$loss$seed" = dpo2 ] && { printf 'a\rbad luck\n' >&2; exit 3; }; finish)");
  const sweep_result result = w.run();
  CHECK(result.outcomes.size() == 6);
  CHECK(result.failed == 2);
  CHECK(contains(w.log.str(), "FAILED: dpo, beta 0.1, seed 2 (exit status 3)"));
  CHECK(contains(w.log.str(), "    two\n    bad luck\n"));
  w.behave("finish");
  CHECK(w.run().outcomes.size() == 8);
  CHECK(w.calls().size() == 10);
}

TEST_CASE("a run that leaves no result has failed") {
  world w({"--losses", "kto", "--betas", "0.1", "--seeds", "1"}, "exit 0");
  CHECK(w.run().failed == 1);
}

TEST_CASE("where nothing but failures came of it, no more is started") {
  world w({"--losses", "kto", "--betas", "0.1:0.9:0.1", "--seeds", "2", "--jobs", "1"}, "exit 1");
  const sweep_result result = w.run();
  CHECK(result.failed == 5);
  CHECK(result.left == 13);
  CHECK(contains(w.log.str(), "no other is started"));
}

TEST_CASE("a run that hangs is asked to save, once, and is resumed later") {
  world w({"--losses", "kto", "--betas", "0.1,0.2", "--seeds", "1", "--jobs", "2"},
          R"(if [ -z "$resumed" ]; then
  trap 'echo saved; echo asked >> "$out/asked"; echo s > "$out/sft-1.checkpoint"; exit 130' TERM
  echo ready > "$out/hangs"
  while :; do sleep 0.05; done
fi
finish)");
  const sweep_result stopped = w.run([&] { return fs::exists(w.runs[0].folder / "hangs"); });
  CHECK(stopped.outcomes.empty());
  CHECK(stopped.failed == 0);
  CHECK(stopped.left == 2);
  CHECK(w.calls().size() == 1);  // the second one would have started from the first one's model
  CHECK(scratch::read(w.runs[0].folder / "asked") == "asked\n");
  CHECK(contains(scratch::read(w.runs[0].log), "saved"));
  CHECK(contains(w.log.str(), "Stopping: 1 runs save"));

  CHECK(w.run().outcomes.size() == 2);
  CHECK(contains(w.calls().at(1), "--resume"));
}

TEST_CASE("a trainer that is not there is an error") {
  world w(small, "finish");
  w.settings.trainer = w.here.folder() / "nobody";
  CHECK(contains(complaint([&] { w.run(); }), "cannot start"));
}

TEST_CASE("a folder is locked for others, and by what a sweep left running") {
  const scratch here;
  const fs::path file = here.folder() / "lock";
  lock_for_this_process_and_children(file);
  CHECK(contains(complaint([&] { lock_for_this_process_and_children(file); }), "another sweep"));
}
