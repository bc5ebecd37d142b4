// See metrics.hpp.
#include "report/metrics.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

#include "report/format.hpp"

namespace align {
namespace {

using outcome = const seed_outcome&;

std::vector<metric> all_metrics() {
  return {
      {"held_out_auc", "held-out AUC",
       "does the implicit reward rank held-out thumbs up above thumbs down? 0.5 is a coin", 3,
       [](outcome s) { return s.auc_reference; }, [](outcome s) { return s.auc_aligned; }},
      {"pairs_right", "pairs ranked right",
       "share of held-out pairs that the reward ranks as the human did", 3,
       [](outcome s) { return s.pairs == 0 ? not_measured : 0.5; },
       [](outcome s) { return s.pairs_right; }, true},
      {"pairs_right_at_equal_length", "at equal length",
       "the same without what is proportional to the difference of lengths", 3,
       [](outcome s) { return s.pairs == 0 ? not_measured : 0.5; },
       [](outcome s) { return s.pairs_right_at_equal_length; }, true},
      {"judged", "judged desirable", "share of generated texts that the naive judge likes", 3,
       [](outcome s) { return s.judged_reference; }, [](outcome s) { return s.judged_aligned; }},
      {"true_reward", "true reward", "exact probability of a thumb up for generated texts", 3,
       [](outcome s) { return s.true_reference; }, [](outcome s) { return s.true_aligned; }, true},
      {"nll", "NLL, nats/token", "how well it predicts held-out texts; lower is better", 3,
       [](outcome s) { return s.nll_reference; }, [](outcome s) { return s.nll_aligned; }},
      {"nll_drift", "NLL drift, nats/token", "what alignment cost in fluency", 3,
       [](outcome) { return 0.0; }, [](outcome s) { return s.nll_aligned - s.nll_reference; }},
      {"length", "length, tokens", "of generated texts", 1,
       [](outcome s) { return s.length_reference; }, [](outcome s) { return s.length_aligned; }},
      {"repetition", "repetition", "share of three tokens in a row that the same text had before",
       3, [](outcome s) { return s.repetition_reference; },
       [](outcome s) { return s.repetition_aligned; }},
      {"kl", "KL, nats/text", "distance from the reference, on generated texts", 2,
       [](outcome s) { return s.kl_reference; }, [](outcome s) { return s.kl_aligned; }}};
}

estimate over_seeds(const run_report& report, double (*value)(outcome)) {
  std::vector<double> values;
  for (const seed_outcome& seed : report.seeds) values.push_back(value(seed));
  return summarise(values);
}

}  // namespace

std::vector<metric_result> metric_results(const run_report& report) {
  std::vector<metric_result> results;
  for (metric& m : all_metrics()) {
    const estimate reference = over_seeds(report, m.reference);
    const estimate aligned = over_seeds(report, m.aligned);
    if (m.optional && std::isnan(aligned.mean)) continue;
    results.push_back({std::move(m), reference, aligned});
  }
  return results;
}

std::vector<std::string> all_warnings(const run_report& report) {
  std::vector<std::string> warnings = diagnose(report);
  for (const std::string& extra : report.warnings) {
    if (std::ranges::find(warnings, extra) == warnings.end()) warnings.push_back(extra);
  }
  return warnings;
}

double end_value(const run_report& report, double step_record::*value) {
  double sum = 0, count = 0;
  for (const seed_outcome& seed : report.seeds) {
    for (std::size_t i = seed.steps.size() * 9 / 10; i < seed.steps.size(); ++i) {
      const double x = seed.steps[i].*value;
      if (std::isfinite(x)) sum += x, count += 1;
    }
  }
  return count > 0 ? sum / count : not_measured;
}

std::string with_error(const estimate& e, int decimals, bool sign) {
  std::string text = sign ? with_sign(e.mean, decimals) : fixed(e.mean, decimals);
  if (e.standard_error > 0) text += " ± " + fixed(e.standard_error, decimals);
  return text;
}

std::string all_clear() { return "No sign of collapse in fluency, length or held-out AUC."; }

}  // namespace align
