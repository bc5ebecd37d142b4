// Means over seeds, frontiers of hand-made points, and the best of each loss.
#include "sweep/summary.hpp"

#include <cmath>

#include "catch.hpp"
#include "made_up.hpp"

using namespace align;

namespace {

using indices = std::vector<std::size_t>;

indices of(const std::vector<point>& points) { return frontier(points); }

std::vector<std::pair<std::string, double>> figures(double auc, double drift) {
  return {{"auc_aligned", auc}, {"nll_drift", drift}};
}

}  // namespace

TEST_CASE("the frontier is what no other point beats") {
  CHECK(of({}).empty());
  CHECK(of({{1, 1}}) == indices{0});
  CHECK(of({{1, 1}, {2, 2}, {3, 1.5}}) == indices{0, 1});   // the last: more drift, less gain
  CHECK(of({{3, 3}, {1, 1}, {2, 2}}) == indices{1, 2, 0});  // from little drift to much
  CHECK(of({{1, 1}, {1, 2}}) == indices{1});                // as much drift, more gain
  CHECK(of({{1, 1}, {2, 1}}) == indices{0});                // as much gain, more drift
  CHECK(of({{1, 1}, {1, 1}, {2, 0}}) == indices{0, 1});     // alike
  CHECK(of({{-1, 0.5}, {0, 0.5}}) == indices{0});           // drift below 0 is none
}

TEST_CASE("what is not finite is neither on the frontier nor in its way") {
  const double nan = std::nan("");
  CHECK(of({{nan, 9}, {1, nan}, {-INFINITY, 9}, {0, INFINITY}, {1, 1}}) == indices{4});
  CHECK(of({{nan, nan}}).empty());
}

TEST_CASE("settings are means over their seeds, by loss and value") {
  const std::vector<run_outcome> outcomes{
      made_up("kto", "0.2", 1, figures(0.6, 0.1)), made_up("dpo", "0.1", 1, figures(0.7, 0.2)),
      made_up("kto", "0.1", 1, figures(0.5, 0.3)), made_up("kto", "0.2", 2, figures(0.64, 0.1))};
  const sweep_summary all = summarise(outcomes);
  REQUIRE(all.gains.size() == 1);  // nothing else was measured
  REQUIRE(all.drifts.size() == 1);
  REQUIRE(all.settings.size() == 3);
  CHECK(all.settings[0].value.text == "0.1");
  CHECK(all.settings[1].value.text == "0.2");
  CHECK(all.settings[2].loss.name == "dpo");
  CHECK(all.settings[1].seeds == 2);
  CHECK(written(all.gains[0], all.settings[1].gains[0]) == "0.620 ± 0.020");
  CHECK(written(all.drifts[0], all.settings[0].drifts[0]) == "+0.300");
  CHECK(all.data == "films");
  CHECK(frontier(all, 0, 0) == indices{1, 2});
  CHECK(best_settings(all, 0) == indices{1, 2});
}

TEST_CASE("figures that the trainer learnt later are swept too") {
  const std::vector<run_outcome> outcomes{
      made_up("dpo", "0.1", 1, {{"pairs_right", 0.6}, {"true_aligned", std::nan("")}})};
  const sweep_summary all = summarise(outcomes);
  REQUIRE(all.gains.size() == 1);
  CHECK(all.gains[0].label == "pairs ranked right");
  CHECK(all.drifts.empty());
  CHECK(best_settings(all, 0) == indices{0});
}

TEST_CASE("a collapsed setting is never best") {
  const std::vector<run_outcome> outcomes{
      made_up("kto", "0.1", 1, figures(0.9, 2), {"COLLAPSE: it forgets", "TOO SHORT: 3 tokens"}),
      made_up("kto", "0.1", 2, figures(0.9, 0.1), {"TOO SHORT: 4 tokens"}),
      made_up("kto", "0.2", 1, figures(0.6, 0.3), {"DRIFT: NLL rose"}),
      made_up("kto", "0.3", 1, figures(0.6, 0.2)),
      made_up("ipo", "0.3", 1, figures(0.9, 0.2), {"NOT FINITE: the loss"})};
  const sweep_summary all = summarise(outcomes);
  CHECK(verdicts_of(all.settings[0]) == "COLLAPSE 1/2, TOO SHORT 2/2");
  CHECK(all.settings[0].collapsed());
  CHECK(!all.settings[1].collapsed());
  CHECK(frontier(all, 0, 0) == indices{2});
  CHECK(best_settings(all, 0) == indices{2});  // equal gain, less drift; of ipo none
}
