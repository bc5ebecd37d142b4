// See summary.hpp.
#include "sweep/summary.hpp"

#include <algorithm>
#include <cmath>

#include "report/metrics.hpp"

namespace align {
namespace {

std::vector<swept_figure> all_gains() {
  return {{"auc_aligned", "held-out AUC", 3, false},
          {"pairs_right", "pairs ranked right", 3, false},
          {"pairs_right_at_equal_length", "pairs right at equal length", 3, false},
          {"true_aligned", "true reward", 3, false},
          {"judged_aligned", "judged desirable", 3, false}};
}

std::vector<swept_figure> all_drifts() {
  return {{"nll_drift", "NLL drift, nats/token", 3, true},
          {"kl_aligned", "KL, nats/text", 2, false}};
}

std::vector<swept_figure> measured(std::vector<swept_figure> figures,
                                   std::span<const run_outcome> outcomes) {
  std::erase_if(figures, [&](const swept_figure& f) {
    return std::ranges::none_of(outcomes,
                                [&](const run_outcome& o) { return !std::isnan(o.figure(f.key)); });
  });
  return figures;
}

std::vector<estimate> estimates(const std::vector<swept_figure>& figures,
                                std::span<const run_outcome* const> seeds) {
  std::vector<estimate> out;
  for (const swept_figure& f : figures) {
    std::vector<double> values;
    for (const run_outcome* seed : seeds) values.push_back(seed->figure(f.key));
    out.push_back(summarise(values));
  }
  return out;
}

void count_verdicts(const run_outcome& seed, swept_setting& setting) {
  for (const std::string& warning : seed.warnings) {
    const std::string verdict = verdict_of(warning);
    const auto known =
        std::ranges::find(setting.verdicts, verdict, &std::pair<std::string, std::size_t>::first);
    if (known == setting.verdicts.end()) {
      setting.verdicts.emplace_back(verdict, 1);
    } else {
      ++known->second;
    }
  }
}

swept_setting setting_of(std::span<const run_outcome* const> seeds, const sweep_summary& all) {
  swept_setting setting{.loss = seeds.front()->loss,
                        .value = seeds.front()->value,
                        .seeds = seeds.size(),
                        .gains = estimates(all.gains, seeds),
                        .drifts = estimates(all.drifts, seeds),
                        .verdicts = {}};
  for (const run_outcome* seed : seeds) count_verdicts(*seed, setting);
  return setting;
}

std::vector<std::string> losses_in(std::span<const run_outcome> outcomes) {
  std::vector<std::string> names;
  for (const run_outcome& o : outcomes) {
    if (std::ranges::count(names, o.loss.name) == 0) names.push_back(o.loss.name);
  }
  return names;
}

bool finite(const point& p) { return std::isfinite(p.x) && std::isfinite(p.y); }

bool beats(const point& a, const point& b) {
  return finite(a) && a.x <= b.x && a.y >= b.y && (a.x < b.x || a.y > b.y);
}

}  // namespace

bool swept_setting::collapsed() const {
  return std::ranges::any_of(verdicts, [](const auto& verdict) {
    return verdict.first == "COLLAPSE" || verdict.first == "NOT FINITE" ||
           verdict.first == "NOT MEASURED";
  });
}

sweep_summary summarise(std::span<const run_outcome> outcomes) {
  sweep_summary all{measured(all_gains(), outcomes), measured(all_drifts(), outcomes), {}, {}};
  if (!outcomes.empty()) all.data = outcomes.front().data;
  for (const std::string& loss : losses_in(outcomes)) {
    std::vector<const run_outcome*> own;
    for (const run_outcome& o : outcomes) {
      if (o.loss.name == loss) own.push_back(&o);
    }
    std::ranges::stable_sort(own, {}, [](const run_outcome* o) { return o->value.number; });
    for (auto from = own.begin(); from != own.end();) {
      const auto to = std::find_if(from, own.end(), [&](const run_outcome* o) {
        return o->value.text != (*from)->value.text;
      });
      all.settings.push_back(setting_of({from, to}, all));
      from = to;
    }
  }
  return all;
}

std::vector<std::size_t> frontier(std::span<const point> points) {
  std::vector<std::size_t> out;
  for (std::size_t i = 0; i < points.size(); ++i) {
    const bool beaten =
        std::ranges::any_of(points, [&](const point& p) { return beats(p, points[i]); });
    if (finite(points[i]) && !beaten) out.push_back(i);
  }
  std::ranges::stable_sort(out, {}, [&](std::size_t i) { return points[i].x; });
  return out;
}

std::vector<std::size_t> frontier(const sweep_summary& all, std::size_t gain, std::size_t drift) {
  constexpr double nowhere = std::numeric_limits<double>::quiet_NaN();
  std::vector<point> points;
  for (const swept_setting& s : all.settings) {
    points.push_back(s.collapsed() ? point{nowhere, nowhere}
                                   : point{s.drifts[drift].mean, s.gains[gain].mean});
  }
  return frontier(points);
}

std::vector<std::size_t> best_settings(const sweep_summary& all, std::size_t gain) {
  std::vector<std::size_t> out;
  for (std::size_t i = 0; i < all.settings.size(); ++i) {
    const swept_setting& s = all.settings[i];
    if (s.collapsed() || std::isnan(s.gains[gain].mean)) continue;
    const bool same_loss = !out.empty() && all.settings[out.back()].loss.name == s.loss.name;
    if (!same_loss) {
      out.push_back(i);
      continue;
    }
    const swept_setting& best = all.settings[out.back()];
    const double more = s.gains[gain].mean - best.gains[gain].mean;
    const bool less_drift = !all.drifts.empty() && s.drifts.front().mean < best.drifts.front().mean;
    if (more > 0 || (more == 0 && less_drift)) out.back() = i;
  }
  return out;
}

std::string verdicts_of(const swept_setting& setting) {
  std::string out;
  for (const auto& [verdict, seeds] : setting.verdicts) {
    out += (out.empty() ? "" : ", ") + verdict + " " + std::to_string(seeds) + "/" +
           std::to_string(setting.seeds);
  }
  return out;
}

std::string written(const swept_figure& figure, const estimate& e) {
  return with_error(e, figure.decimals, figure.sign);
}

}  // namespace align
