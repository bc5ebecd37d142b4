// See outcome.hpp.
#include "sweep/outcome.hpp"

#include <limits>
#include <nlohmann/json.hpp>

#include "files.hpp"

namespace align {
namespace {

using json = nlohmann::ordered_json;

constexpr double unknown = std::numeric_limits<double>::quiet_NaN();

std::optional<run_outcome> outcome_in(const json& file, const sweep_run& run) {
  if (file.at("command") != run.command) return {};
  const json& seed = file.at("seeds").at(0);
  if (seed.at("seed") != run.seed) return {};
  run_outcome out{run.loss, run.value, run.seed, {}, {}, {}};
  for (const auto& [name, value] : seed.items()) {
    if (name == "seed" || !(value.is_number() || value.is_null())) continue;
    out.figures.emplace_back(name, value.is_null() ? unknown : value.get<double>());
  }
  out.figures.emplace_back("nll_drift", out.figure("nll_aligned") - out.figure("nll_reference"));
  out.data = file.at("data");
  for (const json& warning : file.at("warnings")) out.warnings.push_back(warning);
  return out;
}

}  // namespace

double run_outcome::figure(std::string_view name) const {
  for (const auto& one : figures) {
    if (one.first == name) return one.second;
  }
  return unknown;
}

std::optional<run_outcome> read_outcome(const sweep_run& run) {
  if (!std::filesystem::is_regular_file(run.json)) return {};
  try {
    return outcome_in(json::parse(read_file(run.json)), run);
  } catch (const json::exception&) {
    return {};
  }
}

std::string verdict_of(std::string_view warning) {
  return std::string(warning.substr(0, warning.find(':')));
}

}  // namespace align
