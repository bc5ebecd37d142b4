// Table, CSV and page of hand-made outcomes.
#include "sweep/results.hpp"

#include <cmath>

#include "../scratch.hpp"
#include "catch.hpp"
#include "made_up.hpp"
#include "sweep/scatter.hpp"

using namespace align;

namespace {

std::vector<run_outcome> outcomes() {
  const auto figures = [](double auc, double drift) {
    return std::vector<std::pair<std::string, double>>{
        {"auc_aligned", auc}, {"true_aligned", std::nan("")}, {"nll_drift", drift}};
  };
  return {made_up("kto", "0.05", 1, figures(0.625, 0.5), {"DRIFT: a, b"}),
          made_up("kto", "0.05", 2, figures(0.75, 0.25)),
          made_up("ipo", "0.1", 1, {{"auc_aligned", 0.5}, {"extra", 1}, {"nll_drift", 0.125}},
                  {"COLLAPSE: x", "TOO SHORT: y"})};
}

std::size_t count(std::string_view text, std::string_view part) {
  std::size_t n = 0;
  for (std::size_t at = text.find(part); at != std::string_view::npos; ++n) {
    at = text.find(part, at + part.size());
  }
  return n;
}

}  // namespace

TEST_CASE("the CSV has every figure of every run, and nothing where nothing is known") {
  CHECK(sweep_csv(outcomes()) ==
        "loss,parameter,value,seed,auc_aligned,true_aligned,nll_drift,extra,verdict\n"
        "kto,beta,0.05,1,0.625,,0.5,,DRIFT\n"
        "kto,beta,0.05,2,0.75,,0.25,,\n"
        "ipo,tau,0.1,1,0.5,,0.125,1,COLLAPSE; TOO SHORT\n");
  CHECK(sweep_csv({}) == "loss,parameter,value,seed,verdict\n");
}

TEST_CASE("the table has a row a setting and the best of each loss") {
  const std::string text = sweep_table(summarise(outcomes()));
  CHECK(contains(text, "*  kto   beta 0.05      2  0.688 ± 0.062"));
  CHECK(contains(text, "+0.375 ± 0.125  DRIFT 1/2\n"));
  CHECK(contains(text, "   ipo   tau 0.1        1"));
  CHECK(contains(text, "COLLAPSE 1/1, TOO SHORT 1/1\n"));
  CHECK(contains(text, "Most held-out AUC: kto 0.688 ± 0.062 at beta 0.05 (drift +0.375 ± 0.125)"));
  CHECK(sweep_table({}) == "No run is finished.\n");
}

TEST_CASE("the page is whole, draws each gain against each drift, and escapes") {
  std::vector<run_outcome> all = outcomes();
  all.front().data = "a <b> & c";
  const std::string page = sweep_page(summarise(all), "examples/sweep 'a<b'", {"A note."});
  CHECK(page.starts_with("<!doctype html>"));
  CHECK(page.ends_with("</body></html>\n"));
  CHECK(count(page, "<svg") == 1);  // one gain, one drift
  CHECK(contains(page, "a &lt;b&gt; &amp; c"));
  CHECK(contains(page, "examples/sweep 'a&lt;b'"));
  CHECK(contains(page, "A note."));
  CHECK(contains(page, "kto, by beta"));
  CHECK(contains(page, "ipo, by tau"));
  CHECK(contains(page, "class=\"cross\""));
  CHECK(!contains(page, "nan"));
  CHECK(!contains(page, "http"));
  CHECK(contains(sweep_page({}, "c", {}), "Nothing is measured yet"));
}

TEST_CASE("a scatter marks what is sound, doubtful and collapsed, and where the frontier runs") {
  const double nan = std::nan("");
  const std::vector<dot_series> series{
      {"a",
       {{0, 0, 0.1, 0.1, "one", "t1", dot_state::sound, true},
        {1, 1, nan, nan, "two", "t2", dot_state::doubtful, true}}},
      {"b",
       {{0.5, 0, nan, nan, "three", "t3", dot_state::collapsed, false},
        {nan, 1, nan, nan, "gone", "t4", dot_state::sound, false}}}};
  const std::string drawn = scatter("gain", "drift", series);
  CHECK(count(drawn, "class=\"dot\"") == 1);
  CHECK(count(drawn, "class=\"dot hollow\"") == 2);
  CHECK(count(drawn, "class=\"cross\"") == 1);
  CHECK(count(drawn, "class=\"error\"") == 2);
  CHECK(!contains(drawn, "gone"));
  // x from 52 to 448, a twentieth of the range (errors included) left free at either end; y
  // likewise.
  CHECK(contains(drawn, "class=\"frontier\" d=\"M102.7 261.0L430.0 32.1\""));
  CHECK(contains(drawn, "aria-label=\"gain against drift\""));
  CHECK(scatter("g", "d", {}).empty());
  CHECK(scatter("g", "d", std::vector<dot_series>{{"a", {{nan, 1, nan, nan, "", ""}}}}).empty());
}

TEST_CASE("labels that would lie on each other are left out") {
  std::vector<dot> dots;
  for (int i = 0; i < 50; ++i) {
    dots.push_back({1 + 1e-6 * i, 1, 0, 0, "label", "", dot_state::sound, i == 49});
  }
  dots.push_back({2, 2, 0, 0, "far", "", dot_state::sound, false});
  const std::string drawn = scatter("g", "d", std::vector<dot_series>{{"a", dots}});
  CHECK(count(drawn, ">label<") >= 1);
  CHECK(count(drawn, ">label<") <= 4);
  CHECK(count(drawn, ">far<") == 1);
}

TEST_CASE("drifts of very different size are drawn in powers of ten") {
  const auto drawn = [](double low) {
    return scatter("g", "d",
                   std::vector<dot_series>{{"a",
                                            {{low, 0, 0.02, 0, "", "", dot_state::sound, false},
                                             {1, 1, 0, 0, "", "", dot_state::sound, false}}}});
  };
  CHECK(contains(drawn(0.01), ">0.02<"));
  CHECK(contains(drawn(0.01), ">0.05<"));
  CHECK(contains(drawn(0.01), "H"));  // an error wider than the drift ends at the axis
  CHECK(!contains(drawn(0.01), "nan"));
  CHECK(contains(drawn(0.2), ">0.4<"));
  CHECK(contains(drawn(0.2), ">0.6<"));
  CHECK(contains(drawn(-0.01), ">0.0<"));
}
