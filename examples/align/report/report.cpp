// The terminal's side of report.hpp: table and sparkline.
#include "report/report.hpp"

#include <algorithm>
#include <cmath>
#include <string_view>

#include "report/format.hpp"
#include "report/metrics.hpp"

namespace align {
namespace {

constexpr std::size_t label_width = 22, reference_width = 18, aligned_width = 20;
constexpr int sparkline_width = 32;
constexpr std::size_t page_width = 80;

// Drawn and begun by the first seed, ended as everywhere in the report.
std::string sparkline_row(const run_report& report, std::string_view label,
                          double step_record::*value) {
  std::vector<double> values;
  for (const step_record& r : report.seeds.front().steps) values.push_back(r.*value);
  const auto known = [](double x) { return std::isfinite(x); };
  const auto first = std::ranges::find_if(values, known);
  if (first == values.end()) return "";
  return "  " + pad_right(std::string(label), label_width) + sparkline(values, sparkline_width) +
         "  " + fixed(*first, 3) + " -> " + fixed(end_value(report, value), 3) + "\n";
}

}  // namespace

std::string table(const run_report& report) {
  std::string out = "\n" + report.title + "\n" + report.data_name + "\n\n  " +
                    std::string(label_width, ' ') + pad_left("reference", reference_width) +
                    pad_left("aligned", aligned_width) + "\n";
  for (const metric_result& r : metric_results(report)) {
    const bool sign = r.what.key == "nll_drift";
    out += "  " + pad_right(r.what.label, label_width) +
           pad_left(with_error(r.reference, r.what.decimals, sign), reference_width) +
           pad_left(with_error(r.aligned, r.what.decimals, sign), aligned_width) + "\n";
  }
  if (!report.seeds.empty()) {
    out += "\n";
    out += sparkline_row(report, "loss", &step_record::loss);
    out += sparkline_row(report, "reward, desirable", &step_record::reward_desirable);
    out += sparkline_row(report, "reward, undesirable", &step_record::reward_undesirable);
    out += sparkline_row(report, "z, clamped", &step_record::z);
    out += sparkline_row(report, "z, raw", &step_record::z_raw);
  }
  out += "\n";
  const std::vector<std::string> warnings = all_warnings(report);
  for (const std::string& warning : warnings) out += wrapped(warning, "!! ", page_width);
  if (warnings.empty()) out += wrapped(all_clear(), "ok ", page_width);
  for (const std::string& remark : remarks(report)) out += wrapped(remark, " - ", page_width);
  for (const std::string& note : report.notes) out += wrapped(note, " - ", page_width);
  return out;
}

std::string sparkline(std::span<const double> values, int width) {
  constexpr std::string_view blocks[] = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
  const std::size_t cells = std::min(values.size(), static_cast<std::size_t>(std::max(width, 0)));
  std::vector<double> means;
  for (std::size_t i = 0; i < cells; ++i) {
    double sum = 0, count = 0;
    for (const double x :
         values.subspan(i * values.size() / cells,
                        (i + 1) * values.size() / cells - i * values.size() / cells)) {
      if (std::isfinite(x)) sum += x, count += 1;
    }
    means.push_back(count > 0 ? sum / count : not_measured);
  }
  double low = INFINITY, high = -INFINITY;
  for (const double x : means) {
    if (std::isnan(x)) continue;
    low = std::min(low, x);
    high = std::max(high, x);
  }
  std::string out;
  for (const double x : means) {
    if (std::isnan(x)) {
      out += ' ';
    } else {
      const double height = high > low ? (x - low) / (high - low) : 0.5;
      out += blocks[static_cast<std::size_t>(std::lround(height * 7))];
    }
  }
  return out;
}

}  // namespace align
