// The verdict of report.hpp: rules that each look at one way to be broken. The limits lie between
// runs that were healthy (NLL up by 0.3 to 0.5 nats, length kept, AUC 0.64 to 0.74) and a run that
// had collapsed (NLL up by 3.1, length halved, AUC 0.53) while the judge liked it best of all.
#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "report/format.hpp"
#include "report/metrics.hpp"
#include "report/report.hpp"

namespace align {
namespace {

constexpr double worrying_drift = 0.6;  // nats per token
constexpr double collapse_drift = 1.0;
constexpr double shortest = 0.6;  // of the reference's length
constexpr double longest = 1.6;
constexpr double near_chance = 0.55;   // AUC
constexpr double clear_change = 0.05;  // of a share of texts

using outcome = const seed_outcome&;

double drift(outcome s) { return s.nll_aligned - s.nll_reference; }

std::string from_to(double from, double to, int decimals) {
  return " (" + fixed(from, decimals) + " -> " + fixed(to, decimals) + ")";
}

int first_broken_step(outcome s) {
  for (const step_record& r : s.steps) {
    if (!std::isfinite(r.loss)) return r.step;
  }
  return 0;
}

std::string judged_too(outcome s) {
  if (!(s.judged_aligned > s.judged_reference)) return ".";
  return ", although the judge likes the texts more than before" +
         from_to(s.judged_reference, s.judged_aligned, 2) + ". Never trust the judge alone.";
}

// Neither close to a coin's AUC nor within two sampling errors of it.
bool told_from_chance(outcome s) {
  const bool sure =
      std::isnan(s.auc_sampling_error) || s.auc_aligned - 2 * s.auc_sampling_error > 0.5;
  return s.auc_aligned >= near_chance && sure;
}

// How badly a seed breaks the rule; 0 when it does not.
struct rule {
  double (*excess)(outcome);
  std::string (*sentence)(outcome);
};

constexpr rule rules[] = {
    {[](outcome s) {
       const bool known = !std::isnan(s.nll_aligned + s.length_aligned + s.auc_aligned);
       return known ? 0.0 : 1.0;
     },
     [](outcome) {
       return std::string(
           "NOT MEASURED: the held-out NLL, AUC or length of the aligned model is not a number, so "
           "nothing speaks for it.");
     }},
    {[](outcome s) {
       const bool lost = std::isfinite(s.nll_reference) && std::isinf(s.nll_aligned);
       return lost || first_broken_step(s) > 0 ? 1.0 : 0.0;
     },
     [](outcome s) {
       const int step = first_broken_step(s);
       return "NOT FINITE: " +
              (step > 0 ? "the loss of step " + std::to_string(step) + " is not a finite number"
                        : std::string("the aligned model gives held-out texts probability 0")) +
              "; every figure after it is meaningless.";
     }},
    {[](outcome s) { return drift(s) > collapse_drift ? drift(s) : 0; },
     [](outcome s) {
       return "COLLAPSE: the model is forgetting how to write: NLL rose by " + fixed(drift(s), 2) +
              " nats per token" + from_to(s.nll_reference, s.nll_aligned, 2) + judged_too(s) +
              " Usual causes: one class outweighs the other (--desirable-weight auto repairs "
              "that), or too large a learning rate.";
     }},
    {[](outcome s) {
       return drift(s) > worrying_drift && drift(s) <= collapse_drift ? drift(s) : 0;
     },
     [](outcome s) {
       return "DRIFT: NLL rose by " + fixed(drift(s), 2) + " nats per token" +
              from_to(s.nll_reference, s.nll_aligned, 2) +
              ": fluency pays for the reward; try a smaller learning rate or a larger beta.";
     }},
    {[](outcome s) {
       const double share = s.length_aligned / s.length_reference;
       return share < shortest ? 1 - share : share > longest ? share - 1 : 0;
     },
     [](outcome s) {
       const bool shorter = s.length_aligned < s.length_reference;
       return std::string(shorter ? "TOO SHORT" : "TOO LONG") + ": the texts went from " +
              fixed(s.length_reference, 1) + " to " + fixed(s.length_aligned, 1) +
              " tokens: length, not content, may be what was learnt.";
     }},
    {[](outcome s) { return told_from_chance(s) ? 0 : 1 - s.auc_aligned; },
     [](outcome s) {
       return "CHANCE: the held-out AUC is " + fixed(s.auc_aligned, 3) +
              " and a coin has 0.5: the reward hardly tells held-out thumbs up from thumbs down" +
              judged_too(s);
     }},
    {[](outcome s) {
       const bool judge_up = s.judged_aligned - s.judged_reference > clear_change;
       const double fall = s.true_reference - s.true_aligned;
       return judge_up && fall > 0 ? fall : 0;
     },
     [](outcome s) {
       return "JUDGE FOOLED: the judge likes the texts more" +
              from_to(s.judged_reference, s.judged_aligned, 2) + " but their true reward fell" +
              from_to(s.true_reference, s.true_aligned, 2) + ".";
     }}};

std::string which_seeds(std::size_t broken, std::size_t all, std::uint64_t worst) {
  if (all == 1) return "";
  return " [" + std::to_string(broken) + " of " + std::to_string(all) + " seeds; figures of seed " +
         std::to_string(worst) + "]";
}

void remark_on_clamped_z(const run_report& report, std::vector<std::string>& out) {
  double known = 0, clamped = 0, sum = 0;
  for (const seed_outcome& seed : report.seeds) {
    for (const step_record& r : seed.steps) {
      if (!std::isfinite(r.z_raw) || !std::isfinite(r.z)) continue;
      known += 1;
      clamped += r.z == 0 && r.z_raw < 0 ? 1 : 0;
      sum += r.z_raw;
    }
  }
  if (known == 0 || clamped / known < 0.5) return;
  out.push_back("The reference point z was clamped to 0 in " + percent(clamped / known) +
                " of the steps (raw mean " + fixed(sum / known, 2) +
                " nats): there the loss ran without it.");
}

void remark_on_displacement(const run_report& report, std::vector<std::string>& out) {
  const double up = end_value(report, &step_record::reward_desirable);
  const double down = end_value(report, &step_record::reward_undesirable);
  if (!(up < 0 && down < up)) return;
  out.push_back("Both rewards ended below 0 (" + fixed(up, 3) + " desirable, " + fixed(down, 3) +
                " undesirable): good texts became less likely too, only less so.");
}

void remark_on_certainty(const run_report& report, std::vector<std::string>& out) {
  for (const seed_outcome& seed : report.seeds) {
    if (std::isnan(seed.auc_sampling_error)) continue;
    out.push_back("The number of held-out rows alone gives the AUC a standard error of " +
                  fixed(seed.auc_sampling_error, 3) +
                  "; closer figures cannot be told apart on this data.");
    break;
  }
  if (report.seeds.size() == 1) {
    out.push_back("One seed: the table has no standard error over seeds.");
  }
}

}  // namespace

std::vector<std::string> diagnose(const run_report& report) {
  if (report.seeds.empty()) return {"NOT MEASURED: no seed was finished."};
  std::vector<std::string> verdict;
  for (const rule& r : rules) {
    const seed_outcome* worst = nullptr;
    std::size_t broken = 0;
    for (const seed_outcome& seed : report.seeds) {
      if (!(r.excess(seed) > 0)) continue;
      ++broken;
      if (worst == nullptr || r.excess(seed) > r.excess(*worst)) worst = &seed;
    }
    if (worst == nullptr) continue;
    verdict.push_back(r.sentence(*worst) + which_seeds(broken, report.seeds.size(), worst->seed));
  }
  return verdict;
}

std::vector<std::string> remarks(const run_report& report) {
  std::vector<std::string> out;
  remark_on_clamped_z(report, out);
  remark_on_displacement(report, out);
  remark_on_certainty(report, out);
  return out;
}

}  // namespace align
