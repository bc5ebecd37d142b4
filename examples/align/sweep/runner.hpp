// Runs the trainer in several processes at once until every run is finished, whatever was finished
// or begun before.
#pragma once

#include <cstddef>
#include <functional>
#include <iosfwd>
#include <span>
#include <vector>

#include "sweep/grid.hpp"
#include "sweep/outcome.hpp"

namespace align {

struct sweep_result {
  std::vector<run_outcome> outcomes;  // of finished runs, in the order of the runs
  std::size_t failed = 0;
  std::size_t left = 0;  // neither finished nor failed
};

// One of them failing does not keep others from running, unless all that were tried failed.
// Where `stop` says so, the processes are asked to save what they have, and waited for.
sweep_result run_all(const sweep_settings& s, std::span<const sweep_run> runs,
                     const std::function<bool()>& stop, std::ostream& log);

}  // namespace align
