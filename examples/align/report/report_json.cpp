// The JSON side of report.hpp.
#include <nlohmann/json.hpp>

#include "files.hpp"
#include "report/metrics.hpp"
#include "report/report.hpp"

namespace align {
namespace {

// What is NaN becomes null: the writer does that for every number that JSON cannot hold.
using json = nlohmann::ordered_json;

json of_steps(const std::vector<step_record>& steps) {
  json list = json::array();
  for (const step_record& r : steps) {
    list.push_back({{"step", r.step},
                    {"loss", r.loss},
                    {"reward_desirable", r.reward_desirable},
                    {"reward_undesirable", r.reward_undesirable},
                    {"margin", r.margin},
                    {"z", r.z},
                    {"z_raw", r.z_raw},
                    {"tokens_per_second", r.tokens_per_second}});
  }
  return list;
}

json of_seed(const seed_outcome& s) {
  return {{"seed", s.seed},
          {"auc_reference", s.auc_reference},
          {"auc_aligned", s.auc_aligned},
          {"auc_sampling_error", s.auc_sampling_error},
          {"nll_reference", s.nll_reference},
          {"nll_aligned", s.nll_aligned},
          {"judged_reference", s.judged_reference},
          {"judged_aligned", s.judged_aligned},
          {"true_reference", s.true_reference},
          {"true_aligned", s.true_aligned},
          {"length_reference", s.length_reference},
          {"length_aligned", s.length_aligned},
          {"repetition_reference", s.repetition_reference},
          {"repetition_aligned", s.repetition_aligned},
          {"pairs", s.pairs},
          {"pairs_right", s.pairs_right},
          {"pairs_right_at_equal_length", s.pairs_right_at_equal_length},
          {"pairs_shorter_right", s.pairs_shorter_right},
          {"kl_reference", s.kl_reference},
          {"kl_aligned", s.kl_aligned},
          {"steps", of_steps(s.steps)}};
}

}  // namespace

void write_json(const std::filesystem::path& path, const run_report& report) {
  json out;
  out["title"] = report.title;
  out["command"] = report.command;
  out["data"] = report.data_name;
  for (const metric_result& r : metric_results(report)) {
    out[r.what.key] = {{"reference", r.reference.mean},
                       {"aligned", r.aligned.mean},
                       {"standard_error", r.aligned.standard_error}};
  }
  out["end"] = {{"loss", end_value(report, &step_record::loss)},
                {"reward_desirable", end_value(report, &step_record::reward_desirable)},
                {"reward_undesirable", end_value(report, &step_record::reward_undesirable)},
                {"margin", end_value(report, &step_record::margin)},
                {"z", end_value(report, &step_record::z)},
                {"z_raw", end_value(report, &step_record::z_raw)}};
  out["warnings"] = all_warnings(report);
  out["remarks"] = remarks(report);
  out["notes"] = report.notes;
  out["settings"] = json::object();
  for (const auto& [name, value] : report.settings) out["settings"][name] = value;
  out["seeds"] = json::array();
  for (const seed_outcome& seed : report.seeds) out["seeds"].push_back(of_seed(seed));
  constexpr int indent = 1;
  // A path in the command line need not be UTF-8; JSON must be.
  write_atomically(path, out.dump(indent, ' ', false, json::error_handler_t::replace) + "\n");
}

}  // namespace align
