// The HTML side of report.hpp: one file without scripts, fonts or links, so that it can be mailed,
// archived and opened anywhere; light or dark as the reader's system is.
#include <string>
#include <string_view>

#include "chart.hpp"
#include "files.hpp"
#include "format.hpp"
#include "metrics.hpp"
#include "report.hpp"

namespace align {
namespace {

constexpr std::string_view style = R"css(
:root{color-scheme:light dark;--paper:#fff;--panel:#f6f7f9;--ink:#1b1f24;--soft:#5b6570;--line:#dde1e6;
--good:#0b6e4f;--good-paper:#e3f5ec;--bad:#9b1c1c;--bad-paper:#fdeaea;
--blue:#1f6fb2;--orange:#c2571a;--violet:#6a4fb3;--grey:#6b7683}
@media (prefers-color-scheme:dark){:root{--paper:#14171a;--panel:#1c2126;--ink:#e6e9ec;--soft:#9aa5b1;
--line:#333b43;--good:#7fdcb5;--good-paper:#12322a;--bad:#ff9c95;--bad-paper:#3d1a1c;
--blue:#6cb2eb;--orange:#f0955a;--violet:#b39df0;--grey:#98a4b0}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:62rem;padding:2rem 1.25rem 4rem;background:var(--paper);color:var(--ink);
font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
h1{font-size:1.7rem;line-height:1.2;margin:0 0 .25rem}h2{font-size:1.1rem;margin:2.2rem 0 .7rem}
.data{color:var(--soft);margin:0 0 1.5rem}
.banner{border-left:6px solid;border-radius:6px;padding:.9rem 1.1rem}
.banner strong{font-size:1.15rem}.banner p,.banner ul{margin:.3rem 0 0}.banner ul{padding-left:1.2rem}
.good{color:var(--good);background:var(--good-paper)}.bad{color:var(--bad);background:var(--bad-paper)}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
td{white-space:nowrap}td.text{white-space:normal}
th,td{padding:.45rem .7rem;border-bottom:1px solid var(--line);text-align:right;vertical-align:top}
th{font-weight:600}thead th{color:var(--soft);font-size:.85rem}
th:first-child,td:first-child,.text{text-align:left}
.why{display:block;color:var(--soft);font-size:.82rem;font-weight:400}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(22rem,100%),1fr));gap:1rem}
figure{margin:0;padding:.9rem 1rem .6rem;background:var(--panel);border-radius:8px}
figcaption{font-weight:600}svg{display:block;width:100%;height:auto;margin-top:.4rem}
.legend{display:flex;flex-wrap:wrap;gap:.1rem 1rem;font-size:.82rem;font-weight:400;color:var(--soft)}
.legend b{color:var(--ink)}
.key::before{content:"";display:inline-block;width:1.1em;height:.25em;margin-right:.4em;
vertical-align:middle;border-radius:2px;background:currentColor}
.key.blue::before{background:var(--blue)}.key.orange::before{background:var(--orange)}
.key.violet::before{background:var(--violet)}.key.grey::before{background:var(--grey)}
path{fill:none}path.grid{stroke:var(--line)}path.zero{stroke:var(--soft)}
path.thin{stroke-width:1;opacity:.3}path.thick{stroke-width:2.4;stroke-linejoin:round}
path.blue{stroke:var(--blue)}path.orange{stroke:var(--orange)}
path.violet{stroke:var(--violet)}path.grey{stroke:var(--grey)}
text.tick{font-size:11px;fill:var(--soft)}
pre{white-space:pre-wrap;overflow-wrap:anywhere;background:var(--panel);padding:.7rem 1rem;border-radius:8px}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.15rem 1.2rem;margin:0}
dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}
)css";

std::string element(const std::string& name, std::string_view text) {
  return "<" + name + ">" + escape_html(text) + "</" + name + ">";
}

std::string list(const std::vector<std::string>& sentences) {
  std::string out = "<ul>";
  for (const std::string& sentence : sentences) out += element("li", sentence);
  return out + "</ul>";
}

std::string banner(const run_report& report) {
  const std::vector<std::string> warnings = all_warnings(report);
  if (warnings.empty()) {
    return "<div class=\"banner good\" role=\"status\"><strong>&#10003; Healthy</strong><p>" +
           escape_html(all_clear()) + "</p></div>\n";
  }
  return "<div class=\"banner bad\" role=\"alert\"><strong>&#10007; Do not trust this "
         "run</strong>" +
         list(warnings) + "</div>\n";
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
  return sentences.empty() ? "" : "<h2>What to know</h2>\n" + list(sentences) + "\n";
}

}  // namespace

void write_html(const std::filesystem::path& path, const run_report& report) {
  write_atomically(path,
                   "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
                   "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">" +
                       element("title", report.title) + "<style>" + std::string(style) +
                       "</style></head><body>\n" + element("h1", report.title) +
                       "\n<p class=\"data\">" + escape_html(report.data_name) + "</p>\n" +
                       banner(report) + results(report) + charts(report) + samples(report) +
                       each_seed(report) + notes(report) + settings(report) + "</body></html>\n");
}

}  // namespace align
