// Alignment by optimal transport on the CPU: what couples a batch by sorting, as a preparation of
// the batch, after which any loss of a margin is evaluated as ever, with its gradient, rewards and
// metrics. Both forms are of the batch that is given: ranks sort their own.
//
// Pairs that are not counted, and those that are not finite, take no part in a sort: they keep what
// they were given with, so that they spoil, or are missing from, nobody else's results. Sorts are
// stable: of equal numbers that which stands first in the batch comes first.
#pragma once

#include <prospect/batch.hpp>
#include <prospect/core/float_mode.hpp>
#include <prospect/cpu/checks.hpp>
#include <prospect/cpu/detail/pair_indices.hpp>

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cpu {

inline namespace PROSPECT_CPU_ISA {

/// An element of a sort: what it is sorted by, and where it came from.
struct aot_rank {
  double key = 0;
  std::int64_t at = 0;
};

}  // namespace PROSPECT_CPU_ISA

namespace detail {
inline namespace PROSPECT_CPU_ISA {

/// Two lists of n, in the caller's memory if there is enough of it.
class aot_ranks {
 public:
  aot_ranks(std::span<aot_rank> scratch, std::int64_t n) : room_{scratch} {
    const auto needed = 2 * static_cast<std::size_t>(n);
    if (room_.size() >= needed) return;
    if (!room_.empty()) reject("scratch", "has not 2 elements for each pair");
    own_.resize(needed);
    room_ = own_;
  }
  void add(std::int64_t at, double left, double right) {
    left_of(size_) = {left, at};
    right_of(size_++) = {right, at};
  }
  /// By key, and of equal ones by where they came from.
  void sort() {
    const auto before = [](const aot_rank& a, const aot_rank& b) {
      return a.key < b.key || (a.key == b.key && a.at < b.at);
    };
    const std::size_t half = room_.size() / 2;
    const auto sort_one = [&](std::span<aot_rank> list) {
      std::sort(list.begin(), list.end(), before);
    };
    sort_one(room_.subspan(0, static_cast<std::size_t>(size_)));
    sort_one(room_.subspan(half, static_cast<std::size_t>(size_)));
  }
  std::int64_t size() const { return size_; }
  aot_rank& left_of(std::int64_t k) { return room_[static_cast<std::size_t>(k)]; }
  aot_rank& right_of(std::int64_t k) {
    return room_[room_.size() / 2 + static_cast<std::size_t>(k)];
  }

 private:
  std::vector<aot_rank> own_;
  std::span<aot_rank> room_;
  std::int64_t size_ = 0;
};

inline bool counts(strided_span<const std::int32_t> tokens, std::int64_t i) {
  return tokens.empty() || tokens[i] > 0;
}

}  // namespace PROSPECT_CPU_ISA
}  // namespace detail

inline namespace PROSPECT_CPU_ISA {

/// AOT (Melnyk et al. 2024, arXiv:2406.05882) for pairs: the differences of the policy's sorted
/// log-probabilities are held against those of the reference, quantile by quantile.
///
///   d_k = sorted(P_chosen - P_rejected)_k - sorted(R_chosen - R_rejected)_k
///
/// The pair whose policy difference is the k-th meets the k-th difference of the reference instead
/// of its own. That is a margin: this writes it, in nats, and `evaluate` with it as `in.margin` has
/// d_k for the log-ratio margin of that pair, the loss of each pair, and the gradient through the
/// sort. TRL's `aot` is `dpo` with it; rewards and accuracies are, as there, those of the pairs.
///
/// @param loss the one that will be evaluated: of the margin of summed log-ratios.
/// @param in n pairs without margins. @param margin n elements.
/// @param scratch 2 n elements, or none: they are then allocated.
/// @returns how many pairs took part.
/// @throws std::invalid_argument: rows that do not fit, a reference that is missing, a margin that
///         is there already, a loss that reads none or is of means per token.
template <class Loss>
std::int64_t aot_margins(const Loss& loss, const paired_batch<>& in, const any_row& margin,
                         std::span<aot_rank> scratch = {}) {
  const prospect::detail::default_float_mode mode;
  const std::int64_t n = in.policy_chosen.size();
  detail::require_row("policy_chosen", in.policy_chosen, n);
  detail::require_row("policy_rejected", in.policy_rejected, n);
  detail::require_row("reference_chosen", in.reference_chosen, n);
  detail::require_row("reference_rejected", in.reference_rejected, n);
  detail::token_counts("chosen_tokens", in.chosen_tokens, n);
  detail::token_counts("rejected_tokens", in.rejected_tokens, n);
  detail::require_row("margin", margin, n);
  detail::output_row("margin", margin, n);
  if (!in.margin.empty()) detail::reject("margin", "of the batch is given: AOT's takes its place");
  if (!reads_margin<double>(loss) || !reads_reference<double>(loss) || reads_tokens<double>(loss)) {
    detail::reject("loss", "is none of the margin of summed log-ratios, which AOT sorts");
  }
  detail::aot_ranks ranks{scratch, n};
  const auto difference = [](const const_any_row& chosen, const const_any_row& rejected,
                             std::int64_t i) {
    return chosen.get<double>(i) - rejected.get<double>(i);
  };
  const auto of_reference = [&](std::int64_t i) {
    return difference(in.reference_chosen, in.reference_rejected, i);
  };
  for (std::int64_t i = 0; i < n; ++i) {
    margin.put(i, 0.0);
    const double p = difference(in.policy_chosen, in.policy_rejected, i);
    const double r = of_reference(i);
    using prospect::detail::is_finite;
    if (!detail::counts(in.chosen_tokens, i) || !detail::counts(in.rejected_tokens, i)) continue;
    if (is_finite(p) && is_finite(r)) ranks.add(i, p, r);
  }
  ranks.sort();
  for (std::int64_t k = 0; k < ranks.size(); ++k) {
    const std::int64_t i = ranks.left_of(k).at;
    margin.put(i, ranks.right_of(k).key - of_reference(i));
  }
  return ranks.size();
}

/// AOT for chosen and rejected completions that need not be of the same prompts: their sorted
/// log-ratios are held against each other.
///
///   d_k = sorted(u_chosen)_k - sorted(u_rejected)_k,  u the summed log-ratios
///
/// That is another choice of pairs: this writes which, and `evaluate` on `in` with `chosen` and
/// `rejected` in place of its own has d_k for the margin of the k-th pair, the loss of each rank,
/// and the gradient of each sequence. TRL's `aot_unpaired` is `dpo` on it. Rewards are those of the
/// sequences; margins and accuracies are of the new pairs. Weights and margins belong to the new
/// pairs too.
///
/// @param in pairs among sequences, of which weights and margins are not looked at.
/// @param chosen as many elements as `in.chosen`, and likewise `rejected`; neither overlaps it.
/// Pairs
///        that take no part stand at the end, in their order.
/// @param scratch 2 elements for each pair, or none: they are then allocated.
/// @returns how many pairs took part.
/// @throws std::invalid_argument: rows that do not fit, a reference that is missing, an index that
///         names no sequence.
template <std::signed_integral Index>
std::int64_t aot_pairs(const indexed_pairs& in, strided_span<Index> chosen,
                       strided_span<Index> rejected, std::span<aot_rank> scratch = {}) {
  const prospect::detail::default_float_mode mode;
  const std::int64_t n = in.chosen.size();
  const std::int64_t sequences = in.policy.size();
  detail::require_row("policy", in.policy, sequences);
  detail::require_row("reference", in.reference, sequences);
  detail::token_counts("tokens", in.tokens, sequences);
  if (in.rejected.size() != n) detail::wrong_size("rejected", in.rejected.size(), n);
  detail::describes_memory("chosen", in.chosen.problem());
  detail::describes_memory("rejected", in.rejected.problem());
  detail::pairs_among({.chosen = in.chosen, .rejected = in.rejected, .d_policy = {}}, sequences);
  detail::require_row("chosen", chosen, n);
  detail::output_row("chosen", chosen, n);
  detail::require_row("rejected", rejected, n);
  detail::output_row("rejected", rejected, n);
  detail::aot_ranks ranks{scratch, n};
  const auto log_ratio = [&](std::int64_t s) {
    return in.policy.get<double>(s) - in.reference.get<double>(s);
  };
  std::int64_t end = n;
  for (std::int64_t i = n - 1; i >= 0; --i) {
    const std::int64_t up = in.chosen[i];
    const std::int64_t down = in.rejected[i];
    const double u = log_ratio(up);
    const double v = log_ratio(down);
    using prospect::detail::is_finite;
    if (detail::counts(in.tokens, up) && detail::counts(in.tokens, down) && is_finite(u) &&
        is_finite(v)) {
      ranks.add(i, u, v);
    } else {
      chosen[--end] = static_cast<Index>(up);
      rejected[end] = static_cast<Index>(down);
    }
  }
  ranks.sort();
  for (std::int64_t k = 0; k < ranks.size(); ++k) {
    chosen[k] = static_cast<Index>(in.chosen[ranks.left_of(k).at]);
    rejected[k] = static_cast<Index>(in.rejected[ranks.right_of(k).at]);
  }
  return ranks.size();
}

}  // namespace PROSPECT_CPU_ISA
}  // namespace prospect::inline v2::cpu
PROSPECT_STRICT_END
