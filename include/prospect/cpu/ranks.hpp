// Sums over ranks on the host, or over any other parts of a step: micro-batches, shards, pieces of
// a sequence. Always from the first part to the last, ((p0 + p1) + p2) + ..., so that whoever has
// the same parts gets the same bits, however many machines they came from. The twin of
// cuda/ranks.cuh; adapters/mpi.hpp brings the parts together.
#pragma once

#include <prospect/core/float_mode.hpp>
#include <prospect/cpu/token_checks.hpp>
#include <prospect/reference_point.hpp>
#include <prospect/token_batch.hpp>

#include <concepts>
#include <cstdint>
#include <type_traits>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cpu {

/// Numbers that stand in rows, to be added up column by column: `observed_point` and denominators,
/// and the gradients of parameters. fp32 is added up in fp64, and rounded once.
template <class T>
concept rank_number =
    std::same_as<T, float> || std::same_as<T, double> || std::same_as<T, sum_count>;

/// What a call hands back as sums: metrics, and observations for a reference point.
template <class T>
concept rank_metrics = std::same_as<T, observation> || std::same_as<T, paired_metrics> ||
                       std::same_as<T, unpaired_metrics> || std::same_as<T, token_metrics> ||
                       std::same_as<T, value_metrics>;

/// Anything that ranks add up.
template <class T>
concept rank_part = rank_number<T> || rank_metrics<T>;

namespace detail {
inline namespace PROSPECT_CPU_ISA {

template <class Metrics, class... Sums>
void add_sums(Metrics& all, const Metrics& next, Sums... sums) {
  ((all.*sums += next.*sums), ...);
}

inline void add_part(double& all, double next) { all += next; }
inline void add_part(sum_count& all, const sum_count& next) { all += next; }
inline void add_part(observation& all, const observation& next) {
  static_cast<sum_count&>(all) += next;
  all.nonfinite += next.nonfinite;
  if (all.first_nonfinite < 0) all.first_nonfinite = next.first_nonfinite;
}
template <class Metrics>
void add_common(Metrics& all, const Metrics& next) {
  add_sums(all, next, &Metrics::loss, &Metrics::nonfinite);
  if (all.first_nonfinite < 0) all.first_nonfinite = next.first_nonfinite;
  all.total += next.total;
}
inline void add_part(paired_metrics& all, const paired_metrics& next) {
  using m = paired_metrics;
  add_common(all, next);
  add_sums(all, next, &m::rewards_chosen, &m::rewards_rejected, &m::rewards_margins,
           &m::rewards_accuracies, &m::logps_chosen, &m::logps_rejected);
}
inline void add_part(unpaired_metrics& all, const unpaired_metrics& next) {
  using m = unpaired_metrics;
  add_common(all, next);
  add_sums(all, next, &m::rewards_chosen, &m::rewards_rejected, &m::logps_chosen,
           &m::logps_rejected, &m::kl, &m::kl_unclamped);
}
inline void add_part(token_metrics& all, const token_metrics& next) {
  using m = token_metrics;
  add_common(all, next);
  add_sums(all, next, &m::advantages, &m::ratio, &m::clip_ratio, &m::kl, &m::entropy, &m::tokens);
}
inline void add_part(value_metrics& all, const value_metrics& next) { add_common(all, next); }

/// What a T is added up in.
template <class T>
using summed_t = std::conditional_t<std::same_as<T, float>, double, T>;

}  // namespace PROSPECT_CPU_ISA
}  // namespace detail

inline namespace PROSPECT_CPU_ISA {

/// sums[j] = ((ranks[0][j] + ranks[1][j]) + ranks[2][j]) + ...
/// @param ranks [ranks, n], any pitch.
/// @param sums [n]; may be one of the rows.
/// @throws std::invalid_argument if there are no ranks, or for sizes that differ.
template <rank_number T>
void sum_over_ranks(matrix_view<const std::type_identity_t<T>> ranks, strided_span<T> sums) {
  detail::check_matrix("ranks", ranks);
  if (ranks.rows == 0) detail::reject("ranks", "are none");
  detail::require_row("sums", sums, ranks.columns);
  detail::output_row("sums", sums, ranks.columns);
  const prospect::detail::default_float_mode mode;
  for (std::int64_t j = 0; j < ranks.columns; ++j) {
    detail::summed_t<T> sum = ranks.row(0)[j];
    for (std::int64_t i = 1; i < ranks.rows; ++i) detail::add_part(sum, ranks.row(i)[j]);
    sums[j] = static_cast<T>(sum);
  }
}

/// The same of one value each: all their sums, counts and totals. Totals add up to the loss of the
/// step where every rank's normaliser was the same `over(global count)`. `first_nonfinite` is that
/// of the first rank that has one, an index into that rank's rows.
/// @throws std::invalid_argument if there are no ranks.
template <rank_part T>
T sum_over_ranks(strided_span<const T> ranks) {
  detail::describes_memory("ranks", prospect::detail::view_problem(ranks));
  if (ranks.empty()) detail::reject("ranks", "are none");
  const prospect::detail::default_float_mode mode;
  detail::summed_t<T> sum = ranks[0];
  for (std::int64_t i = 1; i < ranks.size(); ++i) detail::add_part(sum, ranks[i]);
  prospect::detail::settle(sum);
  return static_cast<T>(sum);
}

}  // namespace PROSPECT_CPU_ISA
}  // namespace prospect::inline v2::cpu
PROSPECT_STRICT_END
