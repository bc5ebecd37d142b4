// The figures of the report, in one list that the table, the JSON and the HTML page share.
// Adding a metric is one line in metrics.cpp.
#pragma once

#include <string>
#include <vector>

#include "evaluation/stats.hpp"
#include "report/report.hpp"

namespace align {

struct metric {
  std::string key, label, meaning;
  int decimals;
  double (*reference)(const seed_outcome&);
  double (*aligned)(const seed_outcome&);
  bool optional = false;  // left out where it was not measured
};

struct metric_result {
  metric what;
  estimate reference, aligned;  // over the seeds
};

// In the order of the report. All metrics, also one that was not measured (NaN), unless it is
// optional.
std::vector<metric_result> metric_results(const run_report& report);

// The caller's warnings and the diagnosis, each once.
std::vector<std::string> all_warnings(const run_report& report);

// What a figure of the training ended at, the same in every form of the report: its mean over the
// last tenth of the steps of every seed.
double end_value(const run_report& report, double step_record::*value);

// "0.643 ± 0.004"; a spread of zero, as of a figure that is so by definition, is not shown.
std::string with_error(const estimate& e, int decimals, bool sign);

// What to say when there is no warning.
std::string all_clear();

}  // namespace align
