// Charts small enough to read: where each point lies, what is thinned, smoothed and left out.
#include "report/chart.hpp"

#include <cmath>
#include <string>
#include <vector>

#include "../scratch.hpp"
#include "catch.hpp"

using namespace align;

namespace {

using points = std::vector<point>;

std::string drawn(const std::vector<points>& runs) {
  const std::vector<curve> curves{{"loss", "a", runs, 1.25}};
  return chart("Loss", "step", curves);
}

/// The commands of the first path of this class.
std::string path_of(const std::string& page, const std::string& css_class) {
  const std::string start = "<path class=\"" + css_class + "\" d=\"";
  const std::size_t from = page.find(start) + start.size();
  return page.substr(from, page.find('"', from) - from);
}

std::size_t corners(const std::string& path) {
  std::size_t n = 0;
  for (const char c : path) n += c == 'M' || c == 'L' ? 1 : 0;
  return n;
}

}  // namespace

TEST_CASE("a line goes from corner to corner, with room above and below") {
  const std::string page = drawn({{{1, 0}, {2, 1}, {3, 2}}});
  // x from 52 to 450; y from 200 up to 10, a twentieth of the range left free at either end.
  CHECK(path_of(page, "thin a") == "M52.0 191.4L251.0 105.0L450.0 18.6");
  CHECK(path_of(page, "thick a") == path_of(page, "thin a"));  // too few points to smooth
  CHECK(contains(page, "<figcaption>Loss<"));
  CHECK(contains(page, "aria-label=\"Loss by step\""));
  CHECK(contains(page, "loss <b>1.250</b>"));
  CHECK(contains(page, "viewBox=\"0 0 460 236\""));
}

TEST_CASE("axes are marked at round numbers, zero apart") {
  const std::string page = drawn({{{0, -1}, {10, 1}}});
  for (const char* tick : {">-1.0<", ">-0.5<", ">0.0<", ">0.5<", ">1.0<", ">0<", ">2<", ">10<"}) {
    CAPTURE(tick);
    CHECK(contains(page, tick));
  }
  CHECK(contains(page, "<path class=\"zero\" d=\"M52 105.0H450\"/>"));
  CHECK(contains(page, "<path class=\"grid\" d=\"M52 191.4H450\"/>"));
  CHECK(contains(page, "x=\"450.0\" y=\"216\" text-anchor=\"middle\">10<"));
  // Five steps or fewer for any range: 1, 2 or 5 times a power of ten.
  CHECK(contains(drawn({{{0, 0}, {1, 0.7}}}), ">0.2<"));
  CHECK(contains(drawn({{{0, 0}, {1, 2.2}}}), ">0.5<"));
  CHECK(contains(drawn({{{0, 0}, {1, 4.4}}}), ">1<"));
}

TEST_CASE("what is not finite is left out, and nothing at all is no chart") {
  const std::string page = drawn({{{1, 0}, {2, std::nan("")}, {3, INFINITY}, {4, 1}}});
  CHECK(corners(path_of(page, "thin a")) == 2);
  CHECK(drawn({{{1, std::nan("")}}}).empty());
  CHECK(drawn({}).empty());
  CHECK(chart("t", "x", {}).empty());
  // One point, or equal ones, still have a range.
  CHECK(contains(drawn({{{3, 5}}}), "M251.0 105.0"));
}

TEST_CASE("more points than an eye can tell apart become means of their neighbours") {
  points run;
  for (int i = 0; i < 300; ++i) run.push_back({static_cast<double>(i), 0.0});
  CHECK(corners(path_of(drawn({run}), "thin a")) == 300);
  for (int i = 300; i < 600; ++i) run.push_back({static_cast<double>(i), 0.0});
  const std::string path = path_of(drawn({run}), "thin a");
  CHECK(corners(path) == 300);
  CHECK(path.starts_with("M52.0 "));  // the first of them lies at 0.5, where the range begins
  CHECK(contains(path, "L450.0 "));
}

TEST_CASE("the thick line is the mean over the seeds, smoothed over a fifteenth") {
  const std::string page = drawn({{{1, 0}, {2, 2}}, {{1, 2}, {2, 0}}});
  CHECK(path_of(page, "thick a") == "M52.0 105.0L450.0 105.0");
  // Sixty points reach two to either side: a single peak of 5 becomes five points of 1.
  points run;
  for (int i = 0; i < 60; ++i) run.push_back({static_cast<double>(i), i == 30 ? 5.0 : 0.0});
  const std::string path = path_of(drawn({run}), "thick a");
  const std::string low = path.substr(path.find(' ') + 1, path.find('L') - path.find(' ') - 1);
  std::size_t raised = 0, at = 0;
  for (std::size_t space = path.find(' '); space != std::string::npos;
       space = path.find(' ', space + 1)) {
    raised += path.compare(space + 1, low.size(), low) != 0 ? 1 : 0;
    ++at;
  }
  CHECK(at == 60);
  CHECK(raised == 5);
}

TEST_CASE("text is escaped") {
  CHECK(escape_html("<a & \"b\">") == "&lt;a &amp; &quot;b&quot;&gt;");
}
