// The text side of results.hpp: table and CSV.
#include "sweep/results.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <string_view>

#include "report/format.hpp"

namespace align {
namespace {

using row = std::vector<std::string>;

std::string aligned_columns(const std::vector<row>& rows, std::size_t left_columns) {
  std::vector<std::size_t> widths(rows.front().size());
  for (const row& r : rows) {
    for (std::size_t i = 0; i < r.size(); ++i) widths[i] = std::max(widths[i], columns(r[i]));
  }
  std::string out;
  for (const row& r : rows) {
    std::string line;
    for (std::size_t i = 0; i < r.size(); ++i) {
      const bool to_left = i < left_columns || i + 1 == r.size();
      line +=
          (i == 0 ? "" : "  ") + (to_left ? pad_right(r[i], widths[i]) : pad_left(r[i], widths[i]));
    }
    line.erase(line.find_last_not_of(' ') + 1);
    out += line + "\n";
  }
  return out;
}

std::string best_lines(const sweep_summary& all) {
  std::string out;
  for (std::size_t g = 0; g < all.gains.size(); ++g) {
    std::string line;
    for (const std::size_t i : best_settings(all, g)) {
      const swept_setting& s = all.settings[i];
      line += (line.empty() ? "" : "; ") + s.loss.name + " " + written(all.gains[g], s.gains[g]) +
              " at " + s.loss.parameter + " " + s.value.text;
      if (!all.drifts.empty()) line += " (drift " + written(all.drifts[0], s.drifts[0]) + ")";
    }
    if (!line.empty()) out += wrapped(line, "Most " + all.gains[g].label + ": ", 96);
  }
  return out;
}

// The shortest text that reads as the same number.
std::string exact(double value) {
  if (std::isnan(value)) return "";
  char text[64];
  const auto [end, error] = std::to_chars(text, text + sizeof text, value);
  return {text, end};
}

std::string csv_word(const std::string& text) {
  if (text.find_first_of(",\"\n") == std::string::npos) return text;
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"') out += '"';
    out += c;
  }
  return out + '"';
}

}  // namespace

std::string sweep_table(const sweep_summary& all) {
  if (all.settings.empty()) return "No run is finished.\n";
  std::vector<row> rows{{" ", "loss", "value", "seeds"}};
  for (const auto* figures : {&all.gains, &all.drifts}) {
    for (const swept_figure& f : *figures) rows[0].push_back(f.label);
  }
  rows[0].emplace_back("verdict");
  std::vector<std::size_t> on_it;
  if (!all.gains.empty() && !all.drifts.empty()) on_it = frontier(all, 0, 0);
  for (std::size_t i = 0; i < all.settings.size(); ++i) {
    const swept_setting& s = all.settings[i];
    const bool best = std::ranges::find(on_it, i) != on_it.end();
    row r{best ? "*" : " ", s.loss.name, s.loss.parameter + " " + s.value.text,
          std::to_string(s.seeds)};
    for (std::size_t k = 0; k < all.gains.size(); ++k) {
      r.push_back(written(all.gains[k], s.gains[k]));
    }
    for (std::size_t k = 0; k < all.drifts.size(); ++k) {
      r.push_back(written(all.drifts[k], s.drifts[k]));
    }
    r.push_back(verdicts_of(s));
    rows.push_back(std::move(r));
  }
  std::string out = aligned_columns(rows, 3) + "\n";
  if (!on_it.empty()) {
    out += "* on the frontier of " + all.gains[0].label + " against " + all.drifts[0].label + "\n";
  }
  return out + best_lines(all);
}

std::string sweep_csv(std::span<const run_outcome> outcomes) {
  std::vector<std::string> names;
  for (const run_outcome& o : outcomes) {
    for (const auto& [name, value] : o.figures) {
      if (std::ranges::find(names, name) == names.end()) names.push_back(name);
    }
  }
  std::string out = "loss,parameter,value,seed";
  for (const std::string& name : names) out += "," + csv_word(name);
  out += ",verdict\n";
  for (const run_outcome& o : outcomes) {
    out += o.loss.name + "," + o.loss.parameter + "," + o.value.text + "," + std::to_string(o.seed);
    for (const std::string& name : names) out += "," + exact(o.figure(name));
    std::string verdict;
    for (const std::string& warning : o.warnings) {
      verdict += (verdict.empty() ? "" : "; ") + verdict_of(warning);
    }
    out += "," + csv_word(verdict) + "\n";
  }
  return out;
}

}  // namespace align
