// What a log file sees of a long phase. A stream that is no terminal is all a test has.
#include "report/progress.hpp"

#include <algorithm>
#include <sstream>

#include "../scratch.hpp"
#include "catch.hpp"
#include "report/format.hpp"

using namespace align;

namespace {

std::ptrdiff_t lines(const std::string& text) { return std::ranges::count(text, '\n'); }

}  // namespace

TEST_CASE("a log gets ten plain lines however many steps there are") {
  std::ostringstream log;
  progress p("align", 1000, log);
  CHECK(log.str().empty());
  for (int i = 1; i <= 1000; ++i) p.update({.step = i, .loss = 0.5});
  p.finish();
  CHECK(lines(log.str()) == 10);
  CHECK_FALSE(contains(log.str(), "\r"));
  CHECK_FALSE(contains(log.str(), "\x1b"));
  CHECK(contains(log.str(), "100 %"));
}

TEST_CASE("a short phase gets a line per step, and an interrupted one its last state") {
  std::ostringstream log;
  progress p("align", 3, log);
  for (int i = 1; i <= 3; ++i) p.update({.step = i});
  p.finish();
  p.finish();
  CHECK(lines(log.str()) == 3);

  std::ostringstream cut;
  progress q("align", 1000, cut);
  for (int i = 1; i <= 150; ++i) q.update({.step = i, .loss = i / 1000.0});
  q.finish();
  CHECK(lines(cut.str()) == 2);
  CHECK(contains(cut.str(), "loss 0.150"));

  std::ostringstream silent;
  progress("align", 10, silent).finish();
  CHECK(silent.str().empty());
}

TEST_CASE("a line shows what was measured and leaves out what was not") {
  const step_record full{.step = 50,
                         .loss = 0.4567,
                         .reward_desirable = 0.25,
                         .reward_undesirable = -0.5,
                         .margin = 0.75,
                         .z = 0,
                         .z_raw = -4.36,
                         .tokens_per_second = 12345.6};
  const std::string line = progress_line("align", 100, full, 125, "seed 2");
  for (const char* part :
       {"align", "█████░░░░░", "50 %", "loss 0.457", "reward +/- 0.25/-0.50", "margin 0.75",
        "z/raw 0.00/-4.36", "tok/s 12346", "2 min 5 s left", "seed 2"}) {
    CAPTURE(part, line);
    CHECK(contains(line, part));
  }

  const std::string bare = progress_line("pretrain", 100, {.step = 100, .loss = 5}, 0, "");
  CHECK(bare == "pretrain ██████████ 100 %  0 s left  loss 5.000");

  step_record one_class = full;
  one_class.reward_undesirable = not_measured;
  CHECK(contains(progress_line("align", 100, one_class, 1, ""), "reward +/- 0.25/-"));
}

TEST_CASE("the time left is told in the unit that fits") {
  const auto left = [](double seconds) {
    const std::string line = progress_line("x", 2, {.step = 1}, seconds, "");
    const std::size_t from = line.find("%  ") + 3;
    return line.substr(from, line.find(" left") - from);
  };
  CHECK(left(59.4) == "59 s");
  CHECK(left(59.6) == "1 min 0 s");
  CHECK(left(3599) == "59 min 59 s");
  CHECK(left(3600) == "1 h 0 min");
  CHECK(left(5400) == "1 h 30 min");
  CHECK(left(1e12) == "99 h 0 min");  // as good as never
  CHECK_FALSE(contains(progress_line("x", 2, {.step = 1}, not_measured, ""), "left"));
}

TEST_CASE("a terminal of 80 columns has room for everything") {
  const std::string line = narrow_progress_line("seed 1 simple_kto", 100,
                                                {.step = 50,
                                                 .loss = 0.4567,
                                                 .reward_desirable = -1.06,
                                                 .reward_undesirable = -1.47,
                                                 .margin = 0.41,
                                                 .z = 0,
                                                 .z_raw = -12.34,
                                                 .tokens_per_second = 26271},
                                                65);
  CHECK(line == "simple_kto ██░░ 50 % 1min5s loss 0.46 r -1.06/-1.47 m 0.41 z 0.00/-12.34 26k/s");
  CHECK(columns(line) < 80);
}

TEST_CASE("odd step counts do not break the bar") {
  CHECK(contains(progress_line("x", 0, {.step = 0}, 0, ""), "100 %"));
  CHECK(contains(progress_line("x", 10, {.step = 20}, 0, ""), "100 %"));
}
