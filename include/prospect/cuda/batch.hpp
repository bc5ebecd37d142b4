// What a call on the device is given in place of host values, where those lie on the device
// already: counts and reference points that an all-reduce or the batch itself has left there, and
// that change from one replay of a graph to the next.
#pragma once

#include <prospect/batch.hpp>
#include <prospect/reference_point.hpp>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cuda {

/// What the summed loss is divided by: a normaliser, or a count on the device.
class denominator {
 public:
  PROSPECT_INLINE constexpr denominator(normaliser by) noexcept : by_{by} {}
  /// `*count` is read when the kernel runs, e.g. a global count over ranks. If it is not positive,
  /// losses stand but coefficients and total are NaN, as are losses with a next-token term.
  PROSPECT_INLINE static constexpr denominator over(const double* count) noexcept {
    denominator d{normaliser::over(count == nullptr ? 0 : 1)};
    d.count_ = count;
    return d;
  }
  /// The same, but next-token terms divided by a count of tokens, of the host's or on the device:
  /// see `normaliser::tokens_over`.
  PROSPECT_INLINE constexpr denominator tokens_over(double count) const noexcept {
    denominator d = *this;
    d.by_ = by_.tokens_over(count);
    d.token_count_ = nullptr;
    return d;
  }
  PROSPECT_INLINE constexpr denominator tokens_over(const double* count) const noexcept {
    denominator d = tokens_over(count == nullptr ? 0.0 : 1.0);
    d.token_count_ = count;
    return d;
  }

  /// False if a normaliser is not, or the count is nowhere.
  PROSPECT_INLINE constexpr bool valid() const noexcept { return by_.valid(); }
  PROSPECT_HD constexpr bool counts() const noexcept { return count_ == nullptr && by_.counts(); }
  PROSPECT_HD double factor(double local_count) const noexcept {
    if (count_ == nullptr) return by_.factor(local_count);
    return *count_ > 0 ? 1 / *count_ : 0.0 / 0.0;
  }
  PROSPECT_HD constexpr bool knows_tokens() const noexcept { return by_.knows_tokens(); }
  PROSPECT_HD constexpr bool counts_tokens() const noexcept { return by_.counts_tokens(); }
  PROSPECT_HD double token_share(double local_count, double local_tokens) const noexcept {
    // What stands for a count on the device is 1.
    const double examples = count_ == nullptr ? 1 : *count_;
    const double tokens = token_count_ == nullptr ? 1 : *token_count_;
    if (!(examples > 0 && tokens > 0)) return 0.0 / 0.0;
    return by_.token_share(local_count, local_tokens) * (examples / tokens);
  }

 private:
  normaliser by_;
  const double* count_ = nullptr;
  const double* token_count_ = nullptr;
};

/// A point from observations on the device: their mean, clamped at 0 as `reference_point::from`
/// does for KTO, or as it is for BCO. The host cannot look at them: where they are not finite, the
/// point is NaN, and so is every result that depends on it, which the metrics report.
struct observed_point {
  const sum_count* mismatched;
  bool clamped = true;
};

/// KTO's point as the clamped mean log-ratio of the batch's own mismatched rows, in the same
/// launch. Their number may differ from that of the completions. Rows with 0 tokens are skipped,
/// and where no others are, z is 0 and the metrics name no kl; rows that are not finite are left
/// out and counted in `observed`.
template <class S = mixed>
  requires batch_storage<S>
struct mismatched_batch {
  input_row<S> policy{};
  input_row<S> reference{};
  strided_span<const std::int32_t> tokens{};
  observation* observed = nullptr;  ///< where to report what was seen, on the device; or nullptr
};

namespace detail {

template <class S>
PROSPECT_INLINE constexpr mismatched_batch<> any_rows(const mismatched_batch<S>& batch) noexcept {
  return {.policy = batch.policy,
          .reference = batch.reference,
          .tokens = batch.tokens,
          .observed = batch.observed};
}

/// Where an unpaired batch's reference point comes from. A matter of run time, because every loss
/// takes every point and its kernel need not be compiled four times.
enum class point_kind { given, observed, mean_observed, mismatched, cross_class };

template <batch_storage S>
struct point_source {
  point_kind kind = point_kind::given;
  reference_point given{};
  const sum_count* observed = nullptr;
  mismatched_batch<S> mismatched{};

  PROSPECT_INLINE point_source(const reference_point& point) : given{point} {}
  PROSPECT_INLINE point_source(const observed_point& point)
      : kind{point.clamped ? point_kind::observed : point_kind::mean_observed},
        observed{point.mismatched} {}
  PROSPECT_INLINE point_source(const mismatched_batch<S>& batch)
      : kind{point_kind::mismatched}, mismatched{batch} {}
  template <storage T>
    requires std::same_as<S, mixed>
  PROSPECT_INLINE point_source(const mismatched_batch<T>& batch) : point_source{any_rows(batch)} {}
  template <storage T>
    requires std::same_as<S, mixed>
  PROSPECT_INLINE point_source(const point_source<T>& source)
      : kind{source.kind},
        given{source.given},
        observed{source.observed},
        mismatched{any_rows(source.mismatched)} {}
  PROSPECT_INLINE point_source(cross_class) : kind{point_kind::cross_class} {}
};

/// Whether arithmetic on a batch and its point is fp64.
PROSPECT_INLINE bool in_fp64(const unpaired_batch<>& in, const point_source<mixed>& point) {
  using prospect::detail::is_fp64;
  return prospect::detail::in_fp64(in) || is_fp64(point.mismatched.policy) ||
         is_fp64(point.mismatched.reference);
}

}  // namespace detail

}  // namespace prospect::inline v2::cuda
PROSPECT_STRICT_END
