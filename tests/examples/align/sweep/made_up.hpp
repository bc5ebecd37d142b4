// Outcomes made by hand.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "sweep/outcome.hpp"

namespace align {

inline run_outcome made_up(const std::string& loss, const std::string& value, std::uint64_t seed,
                           std::vector<std::pair<std::string, double>> figures,
                           std::vector<std::string> warnings = {}) {
  return {{loss, loss == "ipo" ? "tau" : "beta", loss != "kto"},
          parse_values(value).front(),
          seed,
          std::move(figures),
          std::move(warnings),
          "films"};
}

}  // namespace align
