// From the rewards of completions that were sampled for the same prompts to what losses are given:
// advantages, pairs, optimal values. Plain host code, because rewards are few.
//
// A group is the completions of one prompt. Groups are a `sequence_layout` over the row of rewards:
// `padded(prompts, completions)` where all have one size, `packed(offsets)` or `ranges` where not.
// Completions of no group are not looked at.
//
// A reward that is not finite takes part in nothing: the others of its group are measured against
// each other as if it were not there, and it is counted in what is returned.
#pragma once

#include <prospect/any_row.hpp>
#include <prospect/core/float_mode.hpp>
#include <prospect/cpu/checks.hpp>
#include <prospect/layout.hpp>

#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cpu {

/// Completions whose reward is not finite.
struct unrewarded {
  std::int64_t count = 0;
  std::int64_t first = -1;  ///< index of the first of them, or -1
};

/// What a reward's distance from its group's mean is divided by: TRL's `scale_rewards`.
enum class scale_rewards {
  group,  ///< the standard deviation of its group
  batch,  ///< that of all rewards of the call
  none,   ///< nothing: Dr. GRPO (arXiv:2503.20783), who found the division to favour easy prompts
};

/// How GRPO scales advantages; as TRL does, unless said otherwise.
struct grpo_scaling {
  scale_rewards by = scale_rewards::group;
  double epsilon = 1e-4;  ///< added to the deviation; not negative
  bool unbiased = true;   ///< variance over n - 1, not n

  PROSPECT_INLINE static constexpr grpo_scaling unscaled() { return {.by = scale_rewards::none}; }
  PROSPECT_INLINE static constexpr grpo_scaling halos() {
    return {.epsilon = 1e-2, .unbiased = false};
  }
};

namespace detail {
inline namespace PROSPECT_CPU_ISA {

using prospect::detail::is_finite;

/// Mean and deviation of the numbers that `each(visit)` visits. Everything is a difference to the
/// first of them, so that equal numbers have a distance and a deviation of exactly 0.
class spread {
 public:
  template <class Each>
  explicit spread(const Each& each) {
    each([&](double x) {
      if (count_ == 0) first_ = x;
      count_ += 1;
      shift_ += x - first_;
    });
    if (count_ > 0) shift_ /= count_;
    double largest = 0;
    each([&](double x) { largest = std::fmax(largest, std::abs(from_mean(x))); });
    if (!(largest > 0)) return;
    double squares = 0;
    each([&](double x) {
      const double part = from_mean(x) / largest;
      squares += part * part;
    });
    root_ = largest * std::sqrt(squares);
  }

  double from_mean(double x) const { return (x - first_) - shift_; }
  /// From the mean of the others; 0 where there are none.
  double from_others(double x) const {
    return count_ < 2 ? 0 : count_ / (count_ - 1) * from_mean(x);
  }
  /// 0 for a single number.
  double deviation(bool unbiased) const {
    return root_ > 0 ? root_ / std::sqrt(unbiased ? count_ - 1 : count_) : root_;
  }
  /// From the mean, in units of `by`; 0 at the mean, even where `by` is 0 as well.
  double scaled(double x, double by) const {
    const double distance = from_mean(x);
    return distance == 0 ? 0 : distance / by;
  }

 private:
  double first_ = 0, shift_ = 0, count_ = 0, root_ = 0;
};

/// Completions [first, end) of one prompt.
struct group {
  std::int64_t first, end;

  /// f(i, x) for those whose reward x is finite.
  template <class Reward, class F>
  void for_each(const Reward& reward, const F& f) const {
    for (std::int64_t i = first; i < end; ++i) {
      if (const double x = reward(i); is_finite(x)) f(i, x);
    }
  }
  template <class Reward>
  spread spread_of(const Reward& reward) const {
    return spread{
        [&](const auto& visit) { for_each(reward, [&](std::int64_t, double x) { visit(x); }); }};
  }
};

template <class F>
void for_each_group(const sequence_layout& groups, const F& f) {
  for (std::int64_t g = 0; g < groups.sequences(); ++g) f(group{groups.begin(g), groups.end(g)});
}
/// Of all groups together.
template <class Reward>
spread spread_of(const sequence_layout& groups, const Reward& reward) {
  return spread{[&](const auto& visit) {
    for_each_group(groups, [&](const group& of) {
      of.for_each(reward, [&](std::int64_t, double x) { visit(x); });
    });
  }};
}

inline void check_groups(const sequence_layout& groups, std::int64_t n) {
  if (const char* why = groups.problem(n)) reject("groups", why);
}
inline void check_epsilon(double epsilon) {
  if (!(epsilon >= 0) || !is_finite(epsilon)) reject("epsilon", "must be finite and not negative");
}

/// Checks where n advantages go, sets them to 0, or NaN for a reward that is not finite, and counts
/// these.
template <class Reward>
unrewarded begin_advantages(const any_row& advantages, std::int64_t n,
                            const sequence_layout& groups, const Reward& reward) {
  check_groups(groups, n);
  require_row("advantages", advantages, n);
  output_row("advantages", advantages, n);
  for (std::int64_t i = 0; i < n; ++i) advantages.put(i, 0.0);
  unrewarded out;
  for_each_group(groups, [&](const group& of) {
    for (std::int64_t i = of.first; i < of.end; ++i) {
      if (is_finite(reward(i))) continue;
      advantages.put(i, not_a_number<double>);
      if (out.count++ == 0) out.first = i;
    }
  });
  return out;
}

}  // namespace PROSPECT_CPU_ISA
}  // namespace detail

inline namespace PROSPECT_CPU_ISA {

/// GRPO's advantages (Shao et al. 2024, arXiv:2402.03300, section 4.1.2):
///
///   advantage = (r - mean of the group) / (standard deviation + epsilon)
///
/// Shapes: `rewards` and `advantages` have an element for each completion. A group of one, or of
/// equal rewards, has advantages of exactly 0; where a reward is not finite, its own is NaN. What
/// is scaled by batch is scaled by this call's: ranks gather their rewards first.
///
/// @throws std::invalid_argument, before anything is written: rows that differ in size, groups that
///         do not fit them, an epsilon below 0.
inline unrewarded grpo_advantages(const const_any_row& rewards, const sequence_layout& groups,
                                  const any_row& advantages, const grpo_scaling& scaling = {}) {
  const prospect::detail::default_float_mode mode;
  const std::int64_t n = rewards.size();
  detail::require_row("rewards", rewards, n);
  detail::check_epsilon(scaling.epsilon);
  const auto reward = [&](std::int64_t i) { return rewards.get<double>(i); };
  const unrewarded out = detail::begin_advantages(advantages, n, groups, reward);
  const double of_batch = scaling.by == scale_rewards::batch
                              ? detail::spread_of(groups, reward).deviation(scaling.unbiased)
                              : 0;
  detail::for_each_group(groups, [&](const detail::group& of) {
    const detail::spread spread = of.spread_of(reward);
    const double deviation =
        scaling.by == scale_rewards::group ? spread.deviation(scaling.unbiased) : of_batch;
    const double by = scaling.by == scale_rewards::none ? 1 : deviation + scaling.epsilon;
    of.for_each(reward, [&](std::int64_t i, double r) { advantages.put(i, spread.scaled(r, by)); });
  });
  return out;
}

/// RLOO's advantages (Ahmadian et al. 2024, arXiv:2402.14740): the reward less the
/// mean of the others of its group. One that has no others has advantage 0. Otherwise as
/// `grpo_advantages`.
inline unrewarded rloo_advantages(const const_any_row& rewards, const sequence_layout& groups,
                                  const any_row& advantages) {
  const prospect::detail::default_float_mode mode;
  const std::int64_t n = rewards.size();
  detail::require_row("rewards", rewards, n);
  const auto reward = [&](std::int64_t i) { return rewards.get<double>(i); };
  const unrewarded out = detail::begin_advantages(advantages, n, groups, reward);
  detail::for_each_group(groups, [&](const detail::group& of) {
    const detail::spread spread = of.spread_of(reward);
    of.for_each(reward,
                [&](std::int64_t i, double r) { advantages.put(i, spread.from_others(r)); });
  });
  return out;
}

/// GDPO's advantages (Liu et al. 2026, arXiv:2601.05242) for rewards of several
/// components, such as correctness and format, each normalised on its own before they are added up:
///
///   a_k = (r_k - mean of r_k in the group) / (its standard deviation + epsilon)
///   s = sum over k of weight_k a_k
///   advantage = (s - mean of s in the batch) / (its standard deviation + epsilon)
///
/// Deviations are unbiased and epsilon stands in both places, as in TRL ("normalize_then_sum").
/// `components` holds a row of n rewards for each component, `weights` a number for each; none: 1
/// each. A component that says nothing about a prompt is any constant there, and adds 0. A
/// completion of which any component is not finite takes part in nothing and has NaN. The batch is
/// this call's. Allocates a double for each completion.
inline unrewarded gdpo_advantages(std::span<const const_any_row> components,
                                  const sequence_layout& groups, const any_row& advantages,
                                  std::span<const double> weights = {}, double epsilon = 1e-4) {
  const prospect::detail::default_float_mode mode;
  const std::int64_t n = components.empty() ? 0 : components[0].size();
  for (const const_any_row& row : components) detail::require_row("components", row, n);
  detail::check_epsilon(epsilon);
  if (!weights.empty() && weights.size() != components.size()) {
    detail::reject("weights", "has not as many elements as there are components");
  }
  for (const double weight : weights) {
    if (!detail::is_finite(weight)) detail::reject("weights", "must be finite");
  }
  std::vector<double> sums(static_cast<std::size_t>(n));
  const auto sum = [&](std::int64_t i) -> double& { return sums[static_cast<std::size_t>(i)]; };
  for (const const_any_row& row : components) {
    for (std::int64_t i = 0; i < n; ++i) {
      if (!detail::is_finite(row.get<double>(i))) sum(i) = detail::not_a_number<double>;
    }
  }
  const unrewarded out = detail::begin_advantages(advantages, n, groups, sum);
  for (std::size_t k = 0; k < components.size(); ++k) {
    const double weight = weights.empty() ? 1 : weights[k];
    const auto reward = [&](std::int64_t i) {
      return detail::is_finite(sum(i)) ? components[k].get<double>(i) : sum(i);
    };
    detail::for_each_group(groups, [&](const detail::group& of) {
      const detail::spread spread = of.spread_of(reward);
      const double by = spread.deviation(true) + epsilon;
      of.for_each(reward,
                  [&](std::int64_t i, double r) { sum(i) += weight * spread.scaled(r, by); });
    });
  }
  const detail::spread batch = detail::spread_of(groups, sum);
  const double by = batch.deviation(true) + epsilon;
  detail::for_each_group(groups, [&](const detail::group& of) {
    of.for_each(sum, [&](std::int64_t i, double s) { advantages.put(i, batch.scaled(s, by)); });
  });
  return out;
}

/// Online DPO's pairs (Guo et al. 2024, arXiv:2402.04792): of each group the completions of highest
/// and lowest reward. `chosen` and `rejected` have an element for each group and hold positions in
/// the row of rewards, for `indexed_pairs`. Of equal rewards the first is chosen and the last
/// rejected: of two completions that tie, the first is chosen, as in TRL.
///
/// A group without two finite rewards gives no pair. @returns how many there are: the first so many
/// elements are written. @throws std::invalid_argument for rows and groups that do not fit.
template <std::signed_integral Index>
std::int64_t best_and_worst(const const_any_row& rewards, const sequence_layout& groups,
                            strided_span<Index> chosen, strided_span<Index> rejected) {
  const std::int64_t n = rewards.size();
  detail::require_row("rewards", rewards, n);
  detail::check_groups(groups, n);
  detail::require_row("chosen", chosen, groups.sequences());
  detail::output_row("chosen", chosen, groups.sequences());
  detail::require_row("rejected", rejected, groups.sequences());
  detail::output_row("rejected", rejected, groups.sequences());
  const auto reward = [&](std::int64_t i) { return rewards.get<double>(i); };
  std::int64_t pairs = 0;
  detail::for_each_group(groups, [&](const detail::group& of) {
    std::int64_t best = -1;
    std::int64_t worst = -1;
    of.for_each(reward, [&](std::int64_t i, double r) {
      if (best < 0 || r > reward(best)) best = i;
      if (worst < 0 || r <= reward(worst)) worst = i;
    });
    if (best == worst) return;
    chosen[pairs] = static_cast<Index>(best);
    rejected[pairs++] = static_cast<Index>(worst);
  });
  return pairs;
}

/// A*PO's optimal value of a prompt (Brantley et al. 2025, arXiv:2505.20686) from the
/// rewards of completions that the reference policy gave:
///
///   V* = beta1 log mean exp(r / beta1)
///
/// What `a2po` regresses on is r - V*.
/// @throws std::invalid_argument if there is no reward or one that is not finite, or beta1 is not
///         positive.
inline double optimal_value(const const_any_row& rewards, double beta1 = 0.5) {
  const prospect::detail::default_float_mode mode;
  const std::int64_t n = rewards.size();
  if (n == 0) detail::reject("rewards", "is missing");
  detail::require_row("rewards", rewards, n);
  if (!(beta1 >= 1e-30 && beta1 <= 1e30)) {
    detail::reject("beta1", "must be positive (1e-30 to 1e30)");
  }
  auto highest = rewards.get<double>(0);
  for (std::int64_t i = 0; i < n; ++i) {
    const auto r = rewards.get<double>(i);
    if (!detail::is_finite(r)) detail::reject("rewards", "is not finite at " + std::to_string(i));
    highest = std::fmax(highest, r);
  }
  // Of differences, so that neither many equal rewards nor a large beta1 loses digits.
  double below = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    below += std::expm1((rewards.get<double>(i) - highest) / beta1);
  }
  double value = highest + beta1 * std::log1p(below / static_cast<double>(n));
  prospect::detail::settle(value);
  return value;
}

}  // namespace PROSPECT_CPU_ISA
}  // namespace prospect::inline v2::cpu
PROSPECT_STRICT_END
