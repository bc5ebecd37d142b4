// What goes into a batch and what comes out of it: views of rows, the normaliser, and metrics as
// (sum, count). Shared by every back end; holds no loop over data.
#pragma once

#include <prospect/core/dtype.hpp>
#include <prospect/core/strided_span.hpp>

#include <array>
#include <cstdint>
#include <string_view>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v1 {

/// A sum and the number of terms in it. Ranks and micro-batches add up exactly: all-reduce both
/// members, then divide once. A mean of means is never taken.
struct sum_count {
  double sum = 0;
  double count = 0;

  PROSPECT_HD constexpr void add(double x) noexcept {
    sum += x;
    count += 1;
  }
  PROSPECT_HD constexpr sum_count& operator+=(const sum_count& other) noexcept {
    sum += other.sum;
    count += other.count;
    return *this;
  }
  /// False for an absent class: leave the metric out, do not report 0.
  PROSPECT_HD constexpr bool present() const noexcept { return count > 0; }
  /// The mean, or 0 where nothing was counted.
  PROSPECT_HD constexpr double mean() const noexcept { return count > 0 ? sum / count : 0.0; }
};

/// What the summed loss is divided by before its gradient is handed out. Explicit, so that gradient
/// accumulation and data parallelism are exact: give every micro-batch of a step the same
/// `over(global_count)`. Class weights never enter the denominator.
class normaliser {
 public:
  /// Coefficients are dL_i/dP_i as they are.
  static constexpr normaliser sum() noexcept { return {by::nothing, 1}; }
  /// Divided by the number of counted examples of this call (TRL, HALOs).
  static constexpr normaliser mean() noexcept { return {by::local_count, 1}; }
  /// Divided by a count known to the caller, e.g. summed over ranks and micro-batches. Must be
  /// positive. A loss scale s is `over(count / s)`.
  static constexpr normaliser over(double count) noexcept { return {by::given_count, count}; }

  /// False if `over` was given no positive, finite number.
  constexpr bool valid() const noexcept { return count_ >= 1e-300 && count_ <= 1e300; }
  /// Whether the factor depends on what is counted in this call.
  PROSPECT_HD constexpr bool counts() const noexcept { return by_ == by::local_count; }
  /// The factor on losses and coefficients, for a batch with this many counted examples.
  PROSPECT_HD constexpr double factor(double local_count) const noexcept {
    if (by_ == by::local_count) return local_count > 0 ? 1.0 / local_count : 0.0;
    return 1.0 / count_;
  }

 private:
  enum class by { nothing, local_count, given_count };
  constexpr normaliser(by what, double count) noexcept : by_{what}, count_{count} {}
  by by_;
  double count_;
};

/// n preference pairs as rows of n summed log-probabilities (nats). Chosen and rejected may be the
/// two halves of one row: use `strided_span::slice`.
///
/// `*_tokens` hold the numbers of scored tokens and are required by losses that average over
/// tokens. Where they are given, a pair with an empty side has weight 0: its loss and coefficients
/// are 0 and it is not counted. The reference rows are required by every loss that reads a
/// log-ratio; reference-free is a property of a loss, never of a missing row.
template <storage S>
struct paired_batch {
  strided_span<const S> policy_chosen{};
  strided_span<const S> policy_rejected{};
  strided_span<const S> reference_chosen{};
  strided_span<const S> reference_rejected{};
  strided_span<const std::int32_t> chosen_tokens{};
  strided_span<const std::int32_t> rejected_tokens{};
};

/// Where results for n pairs go; an empty row is not written. Outputs may not overlap inputs.
template <storage S>
struct paired_outputs {
  strided_span<S> loss{};             ///< per pair, never reduced or normalised
  strided_span<S> d_policy_chosen{};  ///< dL/dP, times the normaliser's factor
  strided_span<S> d_policy_rejected{};
  strided_span<S> reward_chosen{};  ///< beta x log-ratio
  strided_span<S> reward_rejected{};
};

/// n completions with binary feedback, in any order and any mix of classes.
template <storage S>
struct unpaired_batch {
  strided_span<const S> policy{};
  strided_span<const S> reference{};
  strided_span<const std::uint8_t> desirable{};  ///< 0 = thumb down, anything else = thumb up
  strided_span<const std::int32_t> tokens{};
};

/// Where results for n completions go; an empty row is not written.
template <storage S>
struct unpaired_outputs {
  strided_span<S> loss{};
  strided_span<S> d_policy{};
  strided_span<S> reward{};
};

/// A metric under the name Hugging Face trainers log it by.
struct named_metric {
  std::string_view name;
  sum_count value;
};

/// Metrics of a paired batch. Rewards use the raw log-ratio, whatever the loss made of it.
struct paired_metrics {
  sum_count loss;
  sum_count rewards_chosen;
  sum_count rewards_rejected;
  sum_count rewards_margins;
  sum_count rewards_accuracies;  ///< chosen > rejected, strictly: a tie is no success
  sum_count logps_chosen;
  sum_count logps_rejected;
  sum_count nonfinite;  ///< pairs whose loss or gradient is NaN or infinite, of all counted pairs
  std::int64_t first_nonfinite = -1;  ///< index of the first of them in this call, or -1
  double total = 0;                   ///< the scalar loss: the sum times the normaliser's factor

  constexpr std::array<named_metric, 8> named() const {
    return {{{"loss", loss},
             {"rewards/chosen", rewards_chosen},
             {"rewards/rejected", rewards_rejected},
             {"rewards/margins", rewards_margins},
             {"rewards/accuracies", rewards_accuracies},
             {"logps/chosen", logps_chosen},
             {"logps/rejected", logps_rejected},
             {"nonfinite", nonfinite}}};
  }
};

/// Metrics of an unpaired batch. Chosen stands for desirable and rejected for undesirable, as in
/// TRL; a class that is absent has count 0. There is no margin here, because a difference of class
/// means is not a (sum, count): subtract the two means once they are reduced.
struct unpaired_metrics {
  sum_count loss;
  sum_count rewards_chosen;
  sum_count rewards_rejected;
  sum_count logps_chosen;
  sum_count logps_rejected;
  sum_count kl;            ///< the reference point that was given, clamped; nats
  sum_count kl_unclamped;  ///< the same before clamping: below 0 it silently switches z off
  sum_count nonfinite;
  std::int64_t first_nonfinite = -1;
  double total = 0;

  constexpr std::array<named_metric, 8> named() const {
    return {{{"loss", loss},
             {"rewards/chosen", rewards_chosen},
             {"rewards/rejected", rewards_rejected},
             {"logps/chosen", logps_chosen},
             {"logps/rejected", logps_rejected},
             {"kl", kl},
             {"kl_unclamped", kl_unclamped},
             {"nonfinite", nonfinite}}};
  }
};

}  // namespace prospect::inline v1
PROSPECT_STRICT_END
