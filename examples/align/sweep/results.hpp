// What a sweep found, as a table on the terminal, as CSV and as a self-contained HTML page.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "sweep/summary.hpp"

namespace align {

// A row for each setting, then the best of each loss.
std::string sweep_table(const sweep_summary& all);

// A row for each run, with every figure that any run has; what is not known is empty.
std::string sweep_csv(std::span<const run_outcome> outcomes);

// `command` is how to get it again; `notes` are sentences about this sweep.
std::string sweep_page(const sweep_summary& all, const std::string& command,
                       const std::vector<std::string>& notes);

}  // namespace align
