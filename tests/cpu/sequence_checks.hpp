// Phase 2 against the textbook, whoever evaluates it: the same checks for every back end, storage
// type and layout.

#pragma once

#include <prospect/batch.hpp>
#include <prospect/losses/reads.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <tuple>

#include "catch.hpp"
#include "cpu/cases.hpp"

namespace testing {

/// A number summed beside the bound on its error.
struct bounded_sum {
  real sum = 0, tolerance = 0;
  std::int64_t count = 0;
  void add(real x, real by) {
    sum += x;
    tolerance += by;
    ++count;
  }
  bool matches(const prospect::sum_count& got) const {
    return got.count == static_cast<double>(count) &&
           near(got.sum, sum, 1e-14L, tolerance + 1e-300L);
  }
};

template <class Losses, class Visit>
void for_each_type(const Visit& visit) {
  std::apply([&](const auto&... loss) { (visit(loss), ...); }, Losses{});
}

template <class S>
constexpr real unit = std::numeric_limits<prospect::compute_t<S>>::epsilon();

/// Holds all results of a case against the textbook.
template <class S>
void check_results(const textbook_loss<textbook_pair>& loss, paired_case<S>& c,
                   const prospect::paired_metrics& metrics) {
  const std::int64_t n = c.loss.size();
  CAPTURE(std::string{loss.name}, n);
  real counted = 0;
  for (std::int64_t i = 0; i < n; ++i) counted += c.counted(i) ? 1 : 0;
  bounded_sum losses, chosen, rejected, margins, accuracies, logps_chosen, logps_rejected;
  for (std::int64_t i = 0; i < n; ++i) {
    CAPTURE(i);
    if (!c.counted(i)) {
      for (auto* row : c.outputs()) CHECK(same_bits((*row)[i], stored<S>(0)));
      continue;
    }
    const auto point = c.point(i);
    const expectation e = loss.expected(point);
    const real r_w = loss.reward_scale * point.chosen, r_l = loss.reward_scale * point.rejected;
    CHECK(stored_near<S>(c.loss[i], e.want[0], e.tolerance[0]));
    CHECK(stored_near<S>(c.d_chosen[i], e.want[1] / counted, 2 * e.tolerance[1] / counted));
    CHECK(stored_near<S>(c.d_rejected[i], e.want[2] / counted, 2 * e.tolerance[2] / counted));
    CHECK(stored_near<S>(c.reward_chosen[i], r_w, unit<S> * std::abs(r_w)));
    CHECK(stored_near<S>(c.reward_rejected[i], r_l, unit<S> * std::abs(r_l)));
    losses.add(e.want[0], e.tolerance[0]);
    chosen.add(r_w, unit<S> * std::abs(r_w));
    rejected.add(r_l, unit<S> * std::abs(r_l));
    margins.add(r_w - r_l, unit<S> * (std::abs(r_w) + std::abs(r_l)));
    accuracies.add(point.chosen > point.rejected ? 1 : 0, 0);
    logps_chosen.add(prospect::load(c.policy_chosen[i]), 0);
    logps_rejected.add(prospect::load(c.policy_rejected[i]), 0);
  }
  CHECK(losses.matches(metrics.loss));
  CHECK(chosen.matches(metrics.rewards_chosen));
  CHECK(rejected.matches(metrics.rewards_rejected));
  CHECK(margins.matches(metrics.rewards_margins));
  CHECK(accuracies.matches(metrics.rewards_accuracies));
  CHECK(logps_chosen.matches(metrics.logps_chosen));
  CHECK(logps_rejected.matches(metrics.logps_rejected));
  CHECK(metrics.nonfinite.sum == 0);
  CHECK(metrics.first_nonfinite == -1);
  CHECK(near(metrics.total, counted > 0 ? losses.sum / counted : 0, 1e-14L,
             losses.tolerance + 1e-300L));
  for (auto* row : c.outputs()) CHECK(row->only_elements_written());
}

/// The same of completions. A loss that reads no reference point reports none.
template <class S>
void check_results(const textbook_loss<textbook_answer>& loss, unpaired_case<S>& c,
                   const prospect::reference_point& point, bool reads_point,
                   const prospect::unpaired_metrics& metrics) {
  const std::int64_t n = c.loss.size();
  CAPTURE(std::string{loss.name}, n, point.z);
  real counted = 0;
  for (std::int64_t i = 0; i < n; ++i) counted += c.tokens[i] > 0 ? 1 : 0;
  bounded_sum losses, rewards[2], logps[2];
  for (std::int64_t i = 0; i < n; ++i) {
    CAPTURE(i);
    if (c.tokens[i] == 0) {
      for (auto* row : c.outputs()) CHECK(same_bits((*row)[i], stored<S>(0)));
      continue;
    }
    const auto at = c.point(i, point.z);
    const expectation e = loss.expected(at);
    const real reward = loss.reward_scale * at.log_ratio;
    CHECK(stored_near<S>(c.loss[i], e.want[0], e.tolerance[0]));
    CHECK(stored_near<S>(c.d_policy[i], e.want[1] / counted, 2 * e.tolerance[1] / counted));
    CHECK(stored_near<S>(c.reward[i], reward, unit<S> * std::abs(reward)));
    losses.add(e.want[0], e.tolerance[0]);
    rewards[at.desirable ? 1 : 0].add(reward, unit<S> * std::abs(reward));
    logps[at.desirable ? 1 : 0].add(prospect::load(c.policy[i]), 0);
  }
  CHECK(losses.matches(metrics.loss));
  CHECK(rewards[1].matches(metrics.rewards_chosen));
  CHECK(rewards[0].matches(metrics.rewards_rejected));
  CHECK(logps[1].matches(metrics.logps_chosen));
  CHECK(logps[0].matches(metrics.logps_rejected));
  const double points = reads_point ? 1 : 0;
  CHECK(metrics.kl.count == points);
  CHECK(metrics.kl.sum == points * point.z);
  CHECK(metrics.kl_unclamped.count == points);
  CHECK(metrics.kl_unclamped.sum == points * point.raw);
  CHECK(near(metrics.total, counted > 0 ? losses.sum / counted : 0, 1e-14L,
             losses.tolerance + 1e-300L));
  for (auto* row : c.outputs()) CHECK(row->only_elements_written());
}

/// Evaluates a case and checks it. `evaluate(loss, c)` is a back end: it fills the outputs of the
/// case and returns the metrics.
template <class S, class L, class Evaluate>
void check_paired(const Evaluate& evaluate, const L& loss, paired_case<S>& c) {
  using R = prospect::compute_t<S>;
  check_results(by_the_textbook<R, textbook_pair>(loss), c, evaluate(loss, c));
}
/// The same for `evaluate(loss, c, point)`.
template <class S, class L, class Evaluate>
void check_unpaired(const Evaluate& evaluate, const L& loss, unpaired_case<S>& c, double z) {
  using R = prospect::compute_t<S>;
  const prospect::reference_point point{.z = z, .raw = z - 1};
  check_results(by_the_textbook<R, textbook_answer>(loss), c, point,
                prospect::reads_reference_point<R>(loss), evaluate(loss, c, point));
}

}  // namespace testing
