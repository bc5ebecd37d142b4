// The settings of a sweep over their seeds, and which of them lie on the frontier: those that no
// other beats in gain without more drift, or in drift without less gain.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "evaluation/stats.hpp"
#include "report/chart.hpp"
#include "sweep/outcome.hpp"

namespace align {

struct swept_figure {
  std::string key, label;
  int decimals;
  bool sign;  // written with it
};

struct swept_setting {
  swept_loss loss;
  swept_value value;
  std::size_t seeds = 0;
  std::vector<estimate> gains, drifts;                        // of the summary's figures
  std::vector<std::pair<std::string, std::size_t>> verdicts;  // and of how many seeds

  // Forgot how to write, or cannot be measured: such a model can win any single figure, so it is
  // never best and never on a frontier.
  bool collapsed() const;
};

struct sweep_summary {
  std::vector<swept_figure> gains, drifts;  // those that were measured, the most telling first
  std::vector<swept_setting> settings;      // by loss, in order of appearance, then by value
  std::string data;
};

sweep_summary summarise(std::span<const run_outcome> outcomes);

// Indices of the points on the frontier (x: drift, y: gain), from little drift to much. Points that
// are alike are all on it; what is not finite never is.
std::vector<std::size_t> frontier(std::span<const point> points);

// The same of settings, by one gain and one drift of the summary.
std::vector<std::size_t> frontier(const sweep_summary& all, std::size_t gain, std::size_t drift);

// Per loss, the setting with the most of a gain; of equal ones that with less of the first drift. A
// loss without a usable setting is left out.
std::vector<std::size_t> best_settings(const sweep_summary& all, std::size_t gain);

// "COLLAPSE 2/5, TOO SHORT 1/5"; "" where there is none.
std::string verdicts_of(const swept_setting& setting);

// "0.643 ± 0.004"
std::string written(const swept_figure& figure, const estimate& e);

}  // namespace align
