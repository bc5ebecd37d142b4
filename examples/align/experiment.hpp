// The whole job for one seed after another: load feedback and model, measure, align by a preference
// loss, measure again. A tiny model without a file is trained by next-token loss first.
#pragma once

#include <functional>
#include <iosfwd>
#include <string>
#include <vector>

#include "doctor.hpp"
#include "options.hpp"
#include "report/report.hpp"
#include "session.hpp"

namespace align {

// Progress goes to `log`. `command` is how to repeat the run.
run_report run_experiment(const options& given, const std::string& command,
                          const std::function<bool()>& stop, std::ostream& log);

// What can be known to go wrong before the run that the options ask for.
std::vector<finding> check_experiment(const options& given, std::ostream& log);

}  // namespace align
