// The verdict, on figures that were really measured: runs that were healthy, and one that had
// collapsed while the judge liked it best.
#include <cmath>

#include "../scratch.hpp"
#include "catch.hpp"
#include "report/report.hpp"

using namespace align;

namespace {

seed_outcome measured(double auc, double nll, double judged, double length) {
  seed_outcome s;
  s.seed = 1;
  s.auc_aligned = auc;
  s.nll_reference = 4.776;
  s.nll_aligned = nll;
  s.judged_reference = 0.423;
  s.judged_aligned = judged;
  s.length_reference = 20.2;
  s.length_aligned = length;
  s.kl_aligned = 10;
  return s;
}

const seed_outcome healthy = measured(0.643, 5.098, 0.627, 23.3);
const seed_outcome strong = measured(0.742, 5.306, 0.692, 21.7);
const seed_outcome gentle = measured(0.632, 4.798, 0.470, 20.4);
const seed_outcome repaired = measured(0.600, 4.822, 0.522, 16.5);
const seed_outcome collapsed = measured(0.527, 7.898, 0.837, 8.6);

std::vector<std::string> verdict(const std::vector<seed_outcome>& seeds) {
  run_report report;
  report.seeds = seeds;
  return diagnose(report);
}

bool any_starts(const std::vector<std::string>& sentences, std::string_view start) {
  for (const std::string& s : sentences) {
    if (s.starts_with(start)) return true;
  }
  return false;
}

}  // namespace

TEST_CASE("healthy runs are left in peace") {
  CHECK(verdict({healthy}).empty());
  CHECK(verdict({strong}).empty());
  CHECK(verdict({gentle}).empty());
  CHECK(verdict({repaired}).empty());
  CHECK(verdict({healthy, strong, gentle}).empty());
}

TEST_CASE("a run that measured nothing is not called healthy") {
  CHECK(any_starts(verdict({}), "NOT MEASURED"));
  CHECK(any_starts(verdict({seed_outcome{}}), "NOT MEASURED"));
  seed_outcome s = healthy;
  s.nll_aligned = not_measured;  // also what a model full of NaN gives
  CHECK(any_starts(verdict({s}), "NOT MEASURED"));
}

TEST_CASE("a collapse is caught three ways although the judge is delighted") {
  const std::vector<std::string> v = verdict({collapsed});
  REQUIRE(v.size() == 3);
  CHECK(v[0].starts_with("COLLAPSE"));
  CHECK(contains(v[0], "NLL rose by 3.12 nats per token (4.78 -> 7.90)"));
  CHECK(contains(v[0], "the judge likes the texts more than before (0.42 -> 0.84)"));
  CHECK(contains(v[0], "Never trust the judge alone"));
  CHECK(contains(v[0], "--desirable-weight auto"));
  CHECK(v[1].starts_with("TOO SHORT: the texts went from 20.2 to 8.6 tokens"));
  CHECK(v[2].starts_with("CHANCE: the held-out AUC is 0.527"));
}

TEST_CASE("one collapsed seed is not averaged away") {
  const std::vector<std::string> v = verdict({healthy, collapsed, strong});
  REQUIRE(v.size() == 3);
  CHECK(contains(v[0], "[1 of 3 seeds; figures of seed 1]"));
}

TEST_CASE("each way to be broken is caught on its own") {
  seed_outcome s = healthy;
  s.nll_aligned = s.nll_reference + 0.8;
  CHECK(any_starts(verdict({s}), "DRIFT"));
  CHECK(verdict({s}).size() == 1);

  s = healthy;
  s.length_aligned = 56;
  CHECK(any_starts(verdict({s}), "TOO LONG"));
  CHECK(verdict({s}).size() == 1);

  s = healthy;
  s.true_reference = 0.5;
  s.true_aligned = 0.45;
  CHECK(any_starts(verdict({s}), "JUDGE FOOLED"));
  s.true_aligned = 0.8;
  CHECK(verdict({s}).empty());

  s = healthy;
  s.steps = {{.step = 1, .loss = 0.5}, {.step = 2, .loss = INFINITY}};
  REQUIRE(verdict({s}).size() == 1);
  CHECK(contains(verdict({s})[0], "NOT FINITE: the loss of step 2"));

  s = healthy;
  s.nll_aligned = INFINITY;
  CHECK(any_starts(verdict({s}), "NOT FINITE: the aligned model gives held-out texts"));
  s.nll_reference = INFINITY;  // no fault of the alignment's
  CHECK_FALSE(any_starts(verdict({s}), "NOT FINITE"));
}

TEST_CASE("each limit lies where it is said to lie") {
  const auto with = [](double seed_outcome::*figure, double value) {
    seed_outcome s = healthy;
    s.nll_reference = 4;  // exact, as are the differences from it below
    s.nll_aligned = 4.25;
    s.length_reference = 20;
    s.length_aligned = 20;
    s.*figure = value;
    const std::vector<std::string> v = verdict({s});
    REQUIRE(v.size() <= 1);
    return v.empty() ? std::string{} : v[0].substr(0, v[0].find(':'));
  };
  CHECK(with(&seed_outcome::nll_aligned, 4.59).empty());
  CHECK(with(&seed_outcome::nll_aligned, 4.61) == "DRIFT");
  CHECK(with(&seed_outcome::nll_aligned, 5) == "DRIFT");
  CHECK(with(&seed_outcome::nll_aligned, 5.001) == "COLLAPSE");
  CHECK(with(&seed_outcome::length_aligned, 12.01).empty());
  CHECK(with(&seed_outcome::length_aligned, 11.99) == "TOO SHORT");
  CHECK(with(&seed_outcome::length_aligned, 31.99).empty());
  CHECK(with(&seed_outcome::length_aligned, 32.01) == "TOO LONG");
  CHECK(with(&seed_outcome::auc_aligned, 0.55).empty());
  CHECK(with(&seed_outcome::auc_aligned, 0.549) == "CHANCE");
  CHECK(with(&seed_outcome::auc_sampling_error, 0.0714).empty());  // 0.643 - 2 x 0.0714 > 0.5
  CHECK(with(&seed_outcome::auc_sampling_error, 0.0716) == "CHANCE");

  seed_outcome s = healthy;
  s.true_reference = 0.5;
  s.true_aligned = 0.4;
  s.judged_reference = 0.5;
  s.judged_aligned = 0.56;
  CHECK(any_starts(verdict({s}), "JUDGE FOOLED"));
  s.judged_aligned = 0.54;
  CHECK(verdict({s}).empty());
}

TEST_CASE("of several broken seeds the worst is told") {
  seed_outcome bad = healthy, worse = healthy;
  bad.seed = 5;
  bad.nll_aligned = bad.nll_reference + 0.7;
  worse.seed = 6;
  worse.nll_aligned = worse.nll_reference + 0.9;
  for (const auto& seeds : {std::vector{bad, worse, healthy}, std::vector{worse, healthy, bad}}) {
    REQUIRE(verdict(seeds).size() == 1);
    CHECK(contains(verdict(seeds)[0], "NLL rose by 0.90"));
    CHECK(contains(verdict(seeds)[0], "[2 of 3 seeds; figures of seed 6]"));
  }
}

TEST_CASE("remarks begin at half of the steps, and look at the last tenth") {
  const auto remarked = [](int clamped, int low_from) {
    run_report report;
    report.seeds = {healthy, healthy};
    for (int i = 1; i <= 100; ++i) {
      report.seeds[0].steps.push_back({.step = i,
                                       .loss = 0.5,
                                       .reward_desirable = i >= low_from ? -0.25 : 1.0,
                                       .reward_undesirable = i >= low_from ? -0.5 : 0.5,
                                       .z = i <= clamped ? 0.0 : 1.0,
                                       .z_raw = i <= clamped ? -1.0 : 1.0});
    }
    return remarks(report);
  };
  CHECK(remarked(49, 101).empty());
  REQUIRE(remarked(50, 101).size() == 1);
  CHECK(contains(remarked(50, 101)[0], "clamped to 0 in 50 %"));
  REQUIRE(remarked(0, 91).size() == 1);
  CHECK(contains(remarked(0, 91)[0], "(-0.250 desirable, -0.500 undesirable)"));
  CHECK(remarked(0, 99).empty());  // the mean of the last ten is above 0
}

TEST_CASE("an AUC that so few rows cannot tell from a coin's is called that") {
  seed_outcome s = healthy;
  s.auc_sampling_error = 0.012;
  CHECK(verdict({s}).empty());
  s.auc_sampling_error = 0.1;
  REQUIRE(verdict({s}).size() == 1);
  CHECK(contains(verdict({s})[0], "CHANCE"));
}

TEST_CASE("a judge that dislikes a broken model is not blamed") {
  seed_outcome s = collapsed;
  s.judged_aligned = 0.2;
  for (const std::string& sentence : verdict({s})) CHECK_FALSE(contains(sentence, "judge"));
}

TEST_CASE("a clamped reference point and displaced rewards are remarked, not warned of") {
  run_report report;
  report.seeds = {healthy};
  report.seeds[0].auc_sampling_error = 0.0125;
  for (int i = 1; i <= 100; ++i) {
    report.seeds[0].steps.push_back({.step = i,
                                     .loss = 0.5,
                                     .reward_desirable = -0.387,
                                     .reward_undesirable = -0.526,
                                     .z = 0,
                                     .z_raw = i <= 90 ? -4.0 : 0.0});
  }
  CHECK(diagnose(report).empty());
  const std::vector<std::string> r = remarks(report);
  REQUIRE(r.size() == 4);
  CHECK(contains(r[0], "clamped to 0 in 90 % of the steps (raw mean -3.60 nats)"));
  CHECK(contains(r[1], "Both rewards ended below 0 (-0.387 desirable, -0.526 undesirable)"));
  CHECK(contains(r[2], "standard error of 0.013"));
  CHECK(contains(r[3], "One seed"));

  for (step_record& s : report.seeds[0].steps) {
    s.z = s.z_raw = 1;
    s.reward_desirable = 0.2;
  }
  report.seeds[0].auc_sampling_error = not_measured;
  report.seeds.push_back(healthy);
  CHECK(remarks(report).empty());
}
