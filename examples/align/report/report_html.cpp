// The HTML side of report.hpp.
#include <string>

#include "files.hpp"
#include "report/chart.hpp"
#include "report/format.hpp"
#include "report/metrics.hpp"
#include "report/page.hpp"
#include "report/report.hpp"

namespace align {
namespace {

std::string banner(const run_report& report) {
  const std::vector<std::string> warnings = all_warnings(report);
  if (warnings.empty()) {
    return "<div class=\"banner good\" role=\"status\"><strong>&#10003; Healthy</strong><p>" +
           escape_html(all_clear()) + "</p></div>\n";
  }
  return "<div class=\"banner bad\" role=\"alert\"><strong>&#10007; Do not trust this "
         "run</strong>" +
         bullets(warnings) + "</div>\n";
}

std::string cell(const estimate& e, int decimals, bool sign) {
  return element("td", with_error(e, decimals, sign));
}

std::string results(const run_report& report) {
  const bool several = report.seeds.size() > 1;
  std::string out =
      "<h2>Reference against aligned" +
      std::string(several ? " (mean ± standard error over seeds)" : "") +
      "</h2>\n<div class=\"scroll\"><table><thead><tr><th>held-out figure</th><th>reference</th>"
      "<th>aligned</th><th>change</th></tr></thead><tbody>\n";
  for (const metric_result& r : metric_results(report)) {
    const bool sign = r.what.key == "nll_drift";
    const double change = r.aligned.mean - r.reference.mean;
    out += "<tr><th>" + escape_html(r.what.label) + "<span class=\"why\">" +
           escape_html(r.what.meaning) + "</span></th>" + cell(r.reference, r.what.decimals, sign) +
           cell(r.aligned, r.what.decimals, sign) + "<td>" + with_sign(change, r.what.decimals) +
           "</td></tr>\n";
  }
  return out + "</tbody></table></div>\n";
}

std::string each_seed(const run_report& report) {
  if (report.seeds.size() < 2) return "";
  const auto all = metric_results(report);
  std::string out =
      "<h2>Aligned model, seed by seed</h2>\n<div class=\"scroll\"><table><thead><tr><th>seed</th>";
  for (const metric_result& r : all) out += element("th", r.what.label);
  out += "</tr></thead><tbody>\n";
  for (const seed_outcome& seed : report.seeds) {
    out += "<tr><td>" + std::to_string(seed.seed) + "</td>";
    for (const metric_result& r : all) {
      out += element("td", fixed(r.what.aligned(seed), r.what.decimals));
    }
    out += "</tr>\n";
  }
  return out + "</tbody></table></div>\n";
}

curve curve_of(const run_report& report, const std::string& label, const std::string& css_class,
               double step_record::*value) {
  curve c{label, css_class, {}, end_value(report, value)};
  for (const seed_outcome& seed : report.seeds) {
    auto& run = c.runs.emplace_back();
    for (const step_record& r : seed.steps) {
      run.push_back({static_cast<double>(r.step), r.*value});
    }
  }
  return c;
}

std::string charts(const run_report& report) {
  const curve loss[] = {curve_of(report, "loss", "violet", &step_record::loss)};
  const curve rewards[] = {
      curve_of(report, "desirable", "blue", &step_record::reward_desirable),
      curve_of(report, "undesirable", "orange", &step_record::reward_undesirable)};
  const curve margin[] = {curve_of(report, "margin", "blue", &step_record::margin)};
  const curve z[] = {curve_of(report, "as used (clamped at 0)", "violet", &step_record::z),
                     curve_of(report, "raw", "grey", &step_record::z_raw)};
  const std::string drawn = chart("Loss", "step", loss) + chart("Rewards", "step", rewards) +
                            chart("Reward margin", "step", margin) +
                            chart("Reference point z, nats", "step", z);
  if (drawn.empty()) return "";
  return "<h2>Alignment, step by step</h2>\n<div class=\"charts\">\n" + drawn + "</div>\n";
}

std::string samples(const run_report& report) {
  if (report.samples.empty()) return "";
  std::string out =
      "<h2>What they write</h2>\n<div class=\"scroll\"><table><thead><tr><th>prompt</th>"
      "<th class=\"text\">reference</th><th class=\"text\">aligned</th></tr></thead><tbody>\n";
  for (const sample_text& s : report.samples) {
    out += "<tr><td class=\"text\">" + escape_html(s.prompt) + "</td><td class=\"text\">" +
           escape_html(s.reference) + "</td><td class=\"text\">" + escape_html(s.aligned) +
           "</td></tr>\n";
  }
  return out + "</tbody></table></div>\n";
}

std::string settings(const run_report& report) {
  std::string out = "<h2>How to get it again</h2>\n" + element("pre", report.command) + "\n<dl>";
  for (const auto& [name, value] : report.settings) {
    out += element("dt", name) + element("dd", value);
  }
  return out + "</dl>\n";
}

std::string notes(const run_report& report) {
  std::vector<std::string> sentences = remarks(report);
  sentences.insert(sentences.end(), report.notes.begin(), report.notes.end());
  return sentences.empty() ? "" : "<h2>What to know</h2>\n" + bullets(sentences) + "\n";
}

}  // namespace

void write_html(const std::filesystem::path& path, const run_report& report) {
  write_atomically(
      path, page(report.title, element("h1", report.title) + "\n<p class=\"data\">" +
                                   escape_html(report.data_name) + "</p>\n" + banner(report) +
                                   results(report) + charts(report) + samples(report) +
                                   each_seed(report) + notes(report) + settings(report)));
}

}  // namespace align
