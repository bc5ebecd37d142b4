// Table, sparkline, JSON and HTML of one made-up report.
#include "report/report.hpp"

#include <cmath>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <tuple>

#include "../scratch.hpp"
#include "catch.hpp"

using namespace align;

namespace {

seed_outcome outcome(std::uint64_t seed, double auc) {
  seed_outcome s;
  s.seed = seed;
  s.auc_aligned = auc;
  s.nll_reference = 4.75;
  s.nll_aligned = 5.0;
  s.judged_reference = 0.42;
  s.judged_aligned = 0.63;
  s.length_reference = 20;
  s.length_aligned = 22;
  s.kl_aligned = 7.5;
  for (int i = 1; i <= 50; ++i) {
    const double t = i / 50.0;
    s.steps.push_back({.step = i,
                       .loss = 0.5 - 0.1 * t,
                       .reward_desirable = i % 7 == 0 ? not_measured : t,
                       .reward_undesirable = -t,
                       .margin = 2 * t,
                       .z = 0,
                       .z_raw = -t,
                       .tokens_per_second = 1000});
  }
  return s;
}

run_report example(int seeds) {
  run_report r;
  r.title = "KTO on <films> & \"thumbs\"";
  r.command = "align --loss kto --data 'a<b'";
  r.data_name = "films";
  r.settings = {{"loss", "kto"}, {"beta", "0.1"}};
  r.notes = {"A note."};
  for (int i = 0; i < seeds; ++i) {
    r.seeds.push_back(outcome(static_cast<std::uint64_t>(i + 1), 0.62 + 0.02 * i));
  }
  r.samples = {{"the film", "is <dull>", "is fine"}};
  return r;
}

run_report collapsed_run() {
  run_report r = example(1);
  r.seeds[0].nll_aligned = 7.9;
  r.seeds[0].length_aligned = 8.6;
  return r;
}

using values = std::vector<double>;

nlohmann::json written_json(const run_report& r) {
  const scratch here;
  write_json(here.folder() / "r.json", r);
  return nlohmann::json::parse(scratch::read(here.folder() / "r.json"));
}

std::string written_html(const run_report& r) {
  const scratch here;
  write_html(here.folder() / "r.html", r);
  return scratch::read(here.folder() / "r.html");
}

std::size_t count(std::string_view text, std::string_view part) {
  std::size_t n = 0;
  for (std::size_t at = text.find(part); at != std::string_view::npos; ++n) {
    at = text.find(part, at + part.size());
  }
  return n;
}

}  // namespace

TEST_CASE("the table shows mean and standard error when there are several seeds") {
  const std::string one = table(example(1));
  CHECK(contains(one, "held-out AUC"));
  CHECK(contains(one, "0.620"));
  CHECK_FALSE(contains(one, "±"));
  CHECK(contains(one, "+0.250"));
  CHECK(contains(one, "ok No sign of collapse"));
  CHECK_FALSE(contains(one, "true reward"));

  const std::string three = table(example(3));
  CHECK(contains(three, "0.640 ± 0.012"));  // 0.62, 0.64, 0.66: deviation 0.02 over root 3
}

TEST_CASE("the table speaks out when a run collapsed") {
  const std::string text = table(collapsed_run());
  CHECK(contains(text, "!! COLLAPSE"));
  CHECK(contains(text, "!! TOO SHORT"));
  CHECK_FALSE(contains(text, "No sign of collapse"));
}

TEST_CASE("a sparkline spans the range of its values") {
  CHECK(sparkline(values{0.0, 1.0}) == "▁█");
  CHECK(sparkline(values{1.0, 0.5, 0.0}) == "█▅▁");
  CHECK(sparkline(values{2.0, 2.0}) == "▅▅");
  CHECK(sparkline(values{0.0, std::nan(""), 1.0}) == "▁ █");
  CHECK(sparkline(values{0.0, INFINITY, 1.0}) == "▁ █");
  CHECK(sparkline(values{0.0, 0.0, 1.0, 1.0}, 2) == "▁█");
  CHECK(sparkline(values{}).empty());
  CHECK(sparkline(values{1.0}, 0).empty());
}

TEST_CASE("the JSON holds every figure, and null where there is none") {
  const nlohmann::json one = written_json(example(1));
  for (const char* key : {"held_out_auc", "nll_drift", "judged", "length", "kl"}) {
    CAPTURE(key);
    REQUIRE(one.contains(key));
    CHECK(one[key].size() == 3);
    CHECK(one[key]["reference"].is_number());
    CHECK(one[key]["aligned"].is_number());
    CHECK(one[key]["standard_error"].is_null());
  }
  CHECK(one["held_out_auc"]["reference"] == 0.5);
  CHECK(one["held_out_auc"]["aligned"] == 0.62);
  CHECK(one["nll_drift"]["reference"] == 0.0);
  CHECK(one["nll_drift"]["aligned"] == 0.25);
  CHECK(one["kl"]["reference"] == 0.0);
  CHECK_FALSE(one.contains("true_reward"));
  CHECK(one["data"] == "films");
  CHECK(one["settings"]["beta"] == "0.1");
  CHECK(one["warnings"].empty());
  REQUIRE(one["seeds"].size() == 1);
  CHECK(one["seeds"][0]["steps"].size() == 50);
  CHECK(one["seeds"][0]["steps"][6]["reward_desirable"].is_null());
  CHECK(one["seeds"][0]["true_aligned"].is_null());
  CHECK(one["title"] == "KTO on <films> & \"thumbs\"");
  CHECK(one["command"] == "align --loss kto --data 'a<b'");
  CHECK(one["notes"] == nlohmann::json{"A note."});

  run_report report = example(3);
  for (seed_outcome& s : report.seeds) s.true_reference = 0.5, s.true_aligned = 0.75;
  const nlohmann::json three = written_json(report);
  CHECK_THAT(three["held_out_auc"]["standard_error"].get<double>(),
             WithinAbs(0.02 / std::sqrt(3), 1e-12));
  CHECK(three["length"]["standard_error"] == 0.0);
  CHECK(three["true_reward"]["aligned"] == 0.75);
}

TEST_CASE("every figure of a seed and of a step stands under its own name") {
  seed_outcome s;
  s.seed = 3;
  s.auc_reference = 0.25;
  s.auc_aligned = 1;
  s.auc_sampling_error = 2;
  s.nll_reference = 3;
  s.nll_aligned = 4;
  s.judged_reference = 5;
  s.judged_aligned = 6;
  s.true_reference = 7;
  s.true_aligned = 8;
  s.length_reference = 9;
  s.length_aligned = 10;
  s.kl_reference = 11;
  s.kl_aligned = 12;
  s.repetition_reference = 13;
  s.repetition_aligned = 14;
  s.pairs = 15;
  s.pairs_right = 16;
  s.pairs_right_at_equal_length = 17;
  s.pairs_shorter_right = 18;
  s.steps = {{.step = 1,
              .loss = 2,
              .reward_desirable = 3,
              .reward_undesirable = 4,
              .margin = 5,
              .z = 6,
              .z_raw = 7,
              .tokens_per_second = 8}};
  run_report report;
  report.seeds = {s};
  const nlohmann::json step{{"step", 1},
                            {"loss", 2.0},
                            {"reward_desirable", 3.0},
                            {"margin", 5.0},
                            {"z", 6.0},
                            {"reward_undesirable", 4.0},
                            {"z_raw", 7.0},
                            {"tokens_per_second", 8.0}};
  const nlohmann::json seed{{"seed", 3},
                            {"auc_reference", 0.25},
                            {"auc_aligned", 1.0},
                            {"auc_sampling_error", 2.0},
                            {"nll_reference", 3.0},
                            {"nll_aligned", 4.0},
                            {"judged_reference", 5.0},
                            {"judged_aligned", 6.0},
                            {"true_reference", 7.0},
                            {"true_aligned", 8.0},
                            {"length_reference", 9.0},
                            {"length_aligned", 10.0},
                            {"kl_reference", 11.0},
                            {"kl_aligned", 12.0},
                            {"repetition_reference", 13.0},
                            {"repetition_aligned", 14.0},
                            {"pairs", 15},
                            {"pairs_right", 16.0},
                            {"pairs_right_at_equal_length", 17.0},
                            {"pairs_shorter_right", 18.0},
                            {"steps", nlohmann::json::array({step})}};
  CHECK(written_json(report)["seeds"][0] == seed);
  for (const auto& [key, reference, aligned] :
       {std::tuple{"held_out_auc", 0.25, 1.0}, std::tuple{"judged", 5.0, 6.0},
        std::tuple{"true_reward", 7.0, 8.0}, std::tuple{"nll", 3.0, 4.0},
        std::tuple{"length", 9.0, 10.0}, std::tuple{"kl", 11.0, 12.0},
        std::tuple{"repetition", 13.0, 14.0}, std::tuple{"pairs_right", 0.5, 16.0},
        std::tuple{"pairs_right_at_equal_length", 0.5, 17.0}}) {
    CAPTURE(key);
    CHECK(written_json(report)[key]["reference"] == reference);
    CHECK(written_json(report)[key]["aligned"] == aligned);
  }
}

TEST_CASE("what a figure ended at is its mean over the last tenth, in every form of the report") {
  run_report report = example(1);
  for (step_record& r : report.seeds[0].steps) r.z = 0.25 * r.step;
  const std::string text = table(report);
  for (const char* part :
       {"0.498 -> 0.404", "0.020 -> 0.955", "-0.020 -> -0.960", "0.250 -> 12.000"}) {
    CAPTURE(part);
    CHECK(count(text, part) == (std::string_view{part}.starts_with("-0.020") ? 2 : 1));
  }
  CHECK(contains(text, "reward, desirable"));
  CHECK(contains(text, "z, raw"));
  const nlohmann::json end = written_json(report)["end"];
  CHECK_THAT(end["loss"].get<double>(), WithinAbs(0.404, 1e-12));
  CHECK_THAT(end["reward_desirable"].get<double>(), WithinAbs(0.955, 1e-12));
  CHECK_THAT(end["reward_undesirable"].get<double>(), WithinAbs(-0.96, 1e-12));
  CHECK_THAT(end["margin"].get<double>(), WithinAbs(1.92, 1e-12));
  CHECK_THAT(end["z"].get<double>(), WithinAbs(12, 1e-12));
  CHECK_THAT(end["z_raw"].get<double>(), WithinAbs(-0.96, 1e-12));
  const std::string page = written_html(report);
  for (const char* shown : {"loss <b>0.404</b>", "desirable <b>0.955</b>"}) {
    CHECK(contains(page, shown));
  }
}

TEST_CASE("the JSON keeps its keys when little was measured, and its form when text is odd") {
  run_report bare;
  bare.command = "align \xff";
  bare.seeds = {seed_outcome{}};
  const nlohmann::json j = written_json(bare);
  for (const char* key : {"held_out_auc", "nll_drift", "judged", "length", "kl"}) {
    CAPTURE(key);
    REQUIRE(j.contains(key));
    CHECK(j[key]["aligned"].is_null());
  }
}

TEST_CASE("warnings of the caller and of the diagnosis are each told once") {
  run_report r = collapsed_run();
  r.warnings = diagnose(r);
  r.warnings.push_back("Mine.");
  const nlohmann::json j = written_json(r);
  CHECK(j["warnings"].size() == diagnose(r).size() + 1);
  CHECK(j["warnings"].back() == "Mine.");
  CHECK(count(table(r), "COLLAPSE") == 1);
}

TEST_CASE("the HTML page shows verdict, figures, curves and settings") {
  const std::string page = written_html(example(3));
  CHECK(page.starts_with("<!doctype html>"));
  CHECK(page.ends_with("</body></html>\n"));
  CHECK(contains(page, "class=\"banner good\""));
  CHECK(contains(page, "Healthy"));
  CHECK(contains(page, "0.640 ± 0.012"));
  CHECK(count(page, "<svg ") == 4);
  CHECK(count(page, "<path class=\"thin ") == 3 * 6);  // seeds x curves
  CHECK(count(page, "<path class=\"thick ") == 6);
  CHECK(contains(page, "seed by seed"));
  CHECK(contains(page, "A note."));
  CHECK_FALSE(contains(page, "nan"));
  CHECK_FALSE(contains(page, "inf"));
}

TEST_CASE("the HTML page shows a collapse in a red banner") {
  const std::string page = written_html(collapsed_run());
  CHECK(contains(page, "class=\"banner bad\""));
  CHECK(contains(page, "Do not trust this run"));
  CHECK(contains(page, "COLLAPSE"));
  CHECK_FALSE(contains(page, "Healthy"));
}

TEST_CASE("the HTML page escapes its texts and needs nothing from elsewhere") {
  const std::string page = written_html(example(1));
  CHECK(contains(page, "KTO on &lt;films&gt; &amp; &quot;thumbs&quot;"));
  CHECK(contains(page, "is &lt;dull&gt;"));
  CHECK_FALSE(contains(page, "<films>"));
  for (const char* foreign : {"<script", "http:", "https:", "<link", "@import", "url("}) {
    CAPTURE(foreign);
    CHECK_FALSE(contains(page, foreign));
  }
  for (const char* tag : {"div", "figure", "svg", "table", "tr", "td", "th", "ul", "li", "span"}) {
    CAPTURE(tag);
    const std::string open = std::string("<") + tag;
    CHECK(count(page, open + ">") + count(page, open + " ") ==
          count(page, std::string("</") + tag + ">"));
  }
}

TEST_CASE("a report without steps has no curves and no broken page") {
  run_report r = example(1);
  r.seeds[0].steps.clear();
  CHECK_FALSE(contains(written_html(r), "<svg"));
  r.seeds.clear();
  CHECK(contains(written_html(r), "</html>"));
  CHECK(contains(table(r), "held-out AUC"));
}
