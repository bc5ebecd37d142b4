// The reference point z of KTO and its relatives as an object: who provides it, what was observed,
// what was clamped. Everything is in nats and host-side; observations are (sum, count), so ranks
// can all-reduce them.
#pragma once

#include <prospect/batch.hpp>
#include <prospect/core/error.hpp>
#include <prospect/core/strict.hpp>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2 {

/// The point completions are measured against, for one optimiser step. No gradient passes through.
struct reference_point {
  double z = 0;         ///< what the loss uses; clamped at 0 where it estimates a KL divergence
  double raw = 0;       ///< before clamping
  bool present = true;  ///< false where nothing was observed: z is 0, and metrics name no kl

  /// A KL estimate as KTO uses it: max(0, raw).
  PROSPECT_HD static constexpr reference_point clamped(double raw) noexcept {
    return {.z = raw < 0 ? 0.0 : raw, .raw = raw};
  }
  /// From observed log-ratios of mismatched rows, all-reduced if there are several ranks. No
  /// observation at all gives a 0 that is not present.
  PROSPECT_HD static constexpr reference_point from(const sum_count& mismatched) noexcept {
    reference_point point = clamped(mismatched.mean());
    point.present = mismatched.present();
    return point;
  }
};

/// What mismatched rows showed: the sum of their log-ratios and their number, which is what ranks
/// and micro-batches add up, and beside it the scored rows that were left out because they are not
/// finite.
struct observation : sum_count {
  double nonfinite = 0;
  std::int64_t first_nonfinite = -1;  ///< index of the first of them, or -1
};

/// z = 0: KTO-zero.
PROSPECT_INLINE constexpr reference_point zero_point() noexcept { return {}; }

/// A z of the caller's own, used as given; it may be negative.
/// @throws std::invalid_argument if `z` is not finite.
PROSPECT_INLINE reference_point constant_point(double z) {
  if (!detail::is_finite(z)) detail::refuse("prospect: constant_point: z must be finite");
  return {.z = z, .raw = z};
}

/// The row whose completion row `i`'s prompt is paired with to estimate the KL divergence: a
/// rotation by one, never a reversal, which would leave the middle of an odd batch matched.
///
/// -1 in a batch of one, where the rotation meets its own row: a matched row measures the reward,
/// not the divergence, so there is nothing to observe. -1 too for a row that does not exist.
PROSPECT_INLINE constexpr std::int64_t mismatched_row(std::int64_t i, std::int64_t rows) noexcept {
  if (rows < 2 || i < 0 || i >= rows) return -1;
  return i + 1 < rows ? i + 1 : 0;
}

namespace detail {

/// One step of a moving average.
struct decayed {
  PROSPECT_HD constexpr double operator()(double decay, double past, double now) const noexcept {
    return decay * past + (1 - decay) * now;
  }
};

/// Both members, and their quotient.
PROSPECT_HD constexpr bool is_finite(const sum_count& seen) noexcept {
  return is_finite(seen.sum) && is_finite(seen.count) && is_finite(seen.mean());
}

}  // namespace detail

/// The mean over everything added since the last reset: micro-batches of one step, ranks, or both.
class pooled_point {
 public:
  /// @returns false if the observation is not finite: it is left out, because it would spoil all
  ///          the others.
  PROSPECT_INLINE constexpr bool add(const sum_count& mismatched) noexcept {
    sum_count all = seen_;
    all += mismatched;
    if (!detail::is_finite(mismatched) || !detail::is_finite(all)) return false;
    seen_ = all;
    return true;
  }
  PROSPECT_INLINE constexpr void reset() noexcept { seen_ = {}; }
  /// For an all-reduce across ranks, between the last `add` and `point`.
  PROSPECT_INLINE constexpr sum_count& observed() noexcept { return seen_; }
  PROSPECT_INLINE constexpr const sum_count& observed() const noexcept { return seen_; }
  PROSPECT_INLINE constexpr reference_point point() const noexcept {
    return reference_point::from(seen_);
  }

 private:
  sum_count seen_;
};

/// BCO's point (Jung et al. 2024, arXiv:2404.04656): the mean log-ratio of every example so far, of
/// both classes and of all batches and ranks, in nats; their reward shift delta is beta times it.
/// It is no estimate of a divergence and not clamped. Add a batch before it is measured against the
/// point, and none while evaluating.
class running_point {
 public:
  /// What the batch's own rows show (`observed_log_ratios`), all-reduced if there are several
  /// ranks.
  /// @returns false if it is not finite: it is left out, because no later one would make up for it.
  PROSPECT_INLINE constexpr bool add(const sum_count& log_ratios) noexcept {
    return seen_.add(log_ratios);
  }
  PROSPECT_INLINE constexpr reference_point point() const noexcept {
    reference_point point = seen_.point();
    point.z = point.raw;
    return point;
  }
  /// What a checkpoint has to keep. `restore(state())` changes nothing.
  PROSPECT_INLINE constexpr sum_count state() const noexcept { return seen_.observed(); }
  /// @throws std::invalid_argument if the state is none that `state()` can have given.
  PROSPECT_INLINE void restore(const sum_count& state) {
    if (!detail::is_finite(state) || state.count < 0) {
      detail::refuse("prospect: running_point: state must be finite, and its count not negative");
    }
    seen_.observed() = state;
  }

 private:
  pooled_point seen_;
};

/// An exponential moving average of batch means, bias-corrected like Adam's, clamped at the end so
/// that negative batches count. A batch without observations leaves it unchanged.
class ema_point {
 public:
  /// @param decay weight of the past, in [0, 1).
  /// @throws std::invalid_argument outside that interval.
  PROSPECT_INLINE explicit ema_point(double decay) : decay_{decay} {
    if (!(decay >= 0 && decay < 1)) {
      detail::refuse("prospect: ema_point: decay must lie in [0, 1)");
    }
  }
  /// @returns false if the observation is not finite: it is left out, because no later one would
  ///          make up for it.
  PROSPECT_INLINE constexpr bool add(const sum_count& mismatched) noexcept {
    if (!detail::is_finite(mismatched)) return false;
    if (!mismatched.present()) return true;
    average_ = detail::in_default_mode(detail::decayed{}, decay_, average_, mismatched.mean());
    weight_ = detail::in_default_mode(detail::decayed{}, decay_, weight_, 1.0);
    return true;
  }
  PROSPECT_INLINE constexpr reference_point point() const noexcept {
    return reference_point::from({.sum = average_, .count = weight_});
  }
  /// What a checkpoint has to keep: (average, weight). `restore(state())` changes nothing.
  PROSPECT_INLINE constexpr sum_count state() const noexcept {
    return {.sum = average_, .count = weight_};
  }
  /// @throws std::invalid_argument if the state is none that `state()` can have given.
  PROSPECT_INLINE void restore(const sum_count& state) {
    if (!detail::is_finite(state) || state.count < 0) {
      detail::refuse("prospect: ema_point: state must be finite, and its weight not negative");
    }
    average_ = state.sum;
    weight_ = state.count;
  }

 private:
  double decay_;
  double average_ = 0;
  double weight_ = 0;
};

/// HALOs' SimpleKTO: each class is measured against the other class's clamped mean log-ratio, and
/// the gradient passes through those means. Given to `evaluate` in place of a reference point,
/// because it is formed from the batch itself and couples its rows.
struct cross_class {};

}  // namespace prospect::inline v2
PROSPECT_STRICT_END
