// What a call on the device is given in place of host values, where those lie on the device
// already: counts and reference points that an all-reduce or the batch itself has left there, and
// that change from one replay of a graph to the next.
#pragma once

#include <prospect/batch.hpp>
#include <prospect/reference_point.hpp>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v1::cuda {

/// What the summed loss is divided by: a normaliser, or a count on the device.
class denominator {
 public:
  constexpr denominator(normaliser by) noexcept : by_{by} {}
  /// `*count` is read when the kernel runs, e.g. a global count over ranks. If it is not positive,
  /// losses stand but coefficients and total are NaN.
  static constexpr denominator over(const double* count) noexcept {
    denominator d{normaliser::sum()};
    d.count_ = count;
    return d;
  }

  /// False if a normaliser is not, or the count is nowhere.
  constexpr bool valid() const noexcept { return by_.valid(); }
  PROSPECT_HD constexpr bool counts() const noexcept { return count_ == nullptr && by_.counts(); }
  PROSPECT_HD double factor(double local_count) const noexcept {
    if (count_ == nullptr) return by_.factor(local_count);
    return *count_ > 0 ? 1 / *count_ : 0.0 / 0.0;
  }

 private:
  normaliser by_;
  const double* count_ = nullptr;
};

/// KTO's point from observations on the device, clamped at 0 as `reference_point::from` does.
struct observed_point {
  const sum_count* mismatched;
};

/// KTO's point as the clamped mean log-ratio of the batch's own mismatched rows, in the same
/// launch. Their number may differ from that of the completions; rows with 0 tokens are skipped.
template <storage S>
struct mismatched_batch {
  strided_span<const S> policy{};
  strided_span<const S> reference{};
  strided_span<const std::int32_t> tokens{};
  sum_count* observed = nullptr;  ///< where to report what was seen, on the device; or nullptr
};

namespace detail {

/// Where an unpaired batch's reference point comes from. A matter of run time, because every loss
/// takes every point and its kernel need not be compiled four times.
enum class point_kind { given, observed, mismatched, cross_class };

template <storage S>
struct point_source {
  point_kind kind = point_kind::given;
  reference_point given{};
  const sum_count* observed = nullptr;
  mismatched_batch<S> mismatched{};

  point_source(const reference_point& point) : given{point} {}
  point_source(const observed_point& point)
      : kind{point_kind::observed}, observed{point.mismatched} {}
  point_source(const mismatched_batch<S>& batch)
      : kind{point_kind::mismatched}, mismatched{batch} {}
  point_source(cross_class) : kind{point_kind::cross_class} {}
};

}  // namespace detail

}  // namespace prospect::inline v1::cuda
PROSPECT_STRICT_END
