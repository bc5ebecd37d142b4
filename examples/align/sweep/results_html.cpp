// The HTML side of results.hpp.
#include <algorithm>

#include "report/page.hpp"
#include "sweep/results.hpp"
#include "sweep/scatter.hpp"

namespace align {
namespace {

dot_state state_of(const swept_setting& s) {
  if (s.collapsed()) return dot_state::collapsed;
  return s.verdicts.empty() ? dot_state::sound : dot_state::doubtful;
}

std::string gain_against_drift(const sweep_summary& all, std::size_t gain, std::size_t drift) {
  const std::vector<std::size_t> on_it = frontier(all, gain, drift);
  const swept_figure &up = all.gains[gain], &away = all.drifts[drift];
  std::vector<dot_series> series;
  for (std::size_t i = 0; i < all.settings.size(); ++i) {
    const swept_setting& s = all.settings[i];
    const std::string name = s.loss.name + ", by " + s.loss.parameter;
    if (series.empty() || series.back().label != name) series.push_back({name, {}});
    const estimate &y = s.gains[gain], &x = s.drifts[drift];
    std::string title = s.loss.name + " " + s.loss.parameter + " " + s.value.text + ": " +
                        up.label + " " + written(up, y) + ", " + away.label + " " +
                        written(away, x);
    if (!s.verdicts.empty()) title += ", " + verdicts_of(s);
    series.back().dots.push_back({.x = x.mean,
                                  .y = y.mean,
                                  .x_error = x.standard_error,
                                  .y_error = y.standard_error,
                                  .label = s.value.text,
                                  .title = title,
                                  .state = state_of(s),
                                  .on_frontier = std::ranges::find(on_it, i) != on_it.end()});
  }
  return scatter(up.label, away.label, series);
}

std::string charts(const sweep_summary& all) {
  std::string drawn;
  for (std::size_t g = 0; g < all.gains.size(); ++g) {
    for (std::size_t d = 0; d < all.drifts.size(); ++d) drawn += gain_against_drift(all, g, d);
  }
  if (drawn.empty()) return "<p>Nothing is measured yet.</p>\n";
  return "<div class=\"charts\">\n" + drawn + "</div>\n" +
         bullets(
             {"Up is gain, to the right is drift: the frontier (dashed) joins the settings that "
              "no other beats in one without losing in the other.",
              "A mark is the mean over the seeds of one value, its lines are standard errors; "
              "a thin line joins the values of a loss in their order.",
              "A hollow mark has a verdict against it in some seed (see the table); a crossed "
              "one collapsed or could not be measured, and is on no frontier."}) +
         "\n";
}

std::string head_of(const std::vector<std::string>& names) {
  std::string out = "<div class=\"scroll\"><table><thead><tr>";
  for (const std::string& name : names) out += element("th", name);
  return out + "</tr></thead><tbody>\n";
}

std::string best(const sweep_summary& all) {
  std::string rows;
  for (std::size_t g = 0; g < all.gains.size(); ++g) {
    for (const std::size_t i : best_settings(all, g)) {
      const swept_setting& s = all.settings[i];
      rows += "<tr>" + element("td", all.gains[g].label) + element("td", s.loss.name) +
              element("td", s.loss.parameter + " " + s.value.text) +
              element("td", written(all.gains[g], s.gains[g]));
      for (std::size_t d = 0; d < all.drifts.size(); ++d) {
        rows += element("td", written(all.drifts[d], s.drifts[d]));
      }
      rows += "</tr>\n";
    }
  }
  if (rows.empty()) return "";
  std::vector<std::string> names{"most of", "loss", "value", "gain"};
  for (const swept_figure& d : all.drifts) names.push_back(d.label);
  return "<h2>The best of each loss</h2>\n" + head_of(names) + rows +
         "</tbody></table></div>\n<p class=\"data\">The best of many noisy values looks better "
         "than "
         "it is: run it again with other seeds before you believe a small lead.</p>\n";
}

std::string every_setting(const sweep_summary& all) {
  if (all.settings.empty()) return "";
  std::vector<std::string> names{"loss", "value", "seeds"};
  for (const swept_figure& g : all.gains) names.push_back(g.label);
  for (const swept_figure& d : all.drifts) names.push_back(d.label);
  names.emplace_back("verdict (seeds)");
  std::vector<std::size_t> on_it;
  if (!all.gains.empty() && !all.drifts.empty()) on_it = frontier(all, 0, 0);
  std::string out = "<h2>Every setting (mean ± standard error over seeds)</h2>\n" + head_of(names);
  for (std::size_t i = 0; i < all.settings.size(); ++i) {
    const swept_setting& s = all.settings[i];
    const bool on_frontier = std::ranges::find(on_it, i) != on_it.end();
    out += "<tr>" + element("td", (on_frontier ? "* " : "") + s.loss.name) +
           element("td", s.loss.parameter + " " + s.value.text) +
           element("td", std::to_string(s.seeds));
    for (std::size_t k = 0; k < all.gains.size(); ++k) {
      out += element("td", written(all.gains[k], s.gains[k]));
    }
    for (std::size_t k = 0; k < all.drifts.size(); ++k) {
      out += element("td", written(all.drifts[k], s.drifts[k]));
    }
    out += "<td class=\"text\">" + std::string(element("span", verdicts_of(s))) + "</td></tr>\n";
  }
  out += "</tbody></table></div>\n";
  if (on_it.empty()) return out;
  return out +
         element("p",
                 "* on the frontier of " + all.gains[0].label + " against " + all.drifts[0].label) +
         "\n";
}

}  // namespace

std::string sweep_page(const sweep_summary& all, const std::string& command,
                       const std::vector<std::string>& notes) {
  const std::string title = "Gain against drift";
  std::string body = element("h1", title) + "\n<p class=\"data\">" + element("span", all.data) +
                     "</p>\n" + charts(all) + best(all) + every_setting(all);
  if (!notes.empty()) body += "<h2>What to know</h2>\n" + bullets(notes) + "\n";
  body += "<h2>How to get it again</h2>\n" + element("pre", command) + "\n";
  return page(title, body, scatter_style());
}

}  // namespace align
