// How the token log-probabilities of a sequence become the one number that a loss sees of it, where
// a plain sum will not do; and which sequences make a pair, for what couples the two of them.
//
// A mean needs nothing of this: losses that average divide the sum by the number of tokens.
#pragma once

#include <prospect/any_row.hpp>
#include <prospect/core/index_row.hpp>
#include <prospect/core/math.hpp>

#include <cstdint>
#include <limits>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2 {

/// A log-ratio without bounds.
inline constexpr double no_bound = std::numeric_limits<double>::infinity();

/// What becomes of the scored tokens t = 0, 1, ... of sequence i:
///
///   S_i = sum_t w_t x_t,   x_t = log_prob_t, or clamp(log_prob_t - reference_t)
///
/// `sequence_sums` makes S of it and `spread` goes the way back, dL/dlog_prob_t = w_t x'_t dL/dS_i:
/// one value for both, which carries the rows that the way back reads. By default S is the sum over
/// tokens, the same bits as `sequence_sums` without a reducer.
///
/// **LD-DPO** (Liu et al. 2024, arXiv:2409.06411): w is 1 for the first `public_tokens[i]`
/// scored tokens, the length that the two of a pair have in common (`public_tokens` computes it),
/// and `ld_alpha` for the others: 0 cuts them off, whatever they hold. Policy and reference are
/// summed alike: the same reducer with the other `log_prob`. Token counts stay those of all scored
/// tokens, and losses that average divide by them, as in TRL; `logps/*` and `rewards/*` are the
/// weighted ones.
///
/// **humanline** (arXiv:2509.24207, and HALOs): each token's log-ratio is clamped to
/// [log_epsilon_P, log_epsilon_R]. S is a sum of log-ratios already: phase 2 takes it for the
/// policy, with a reference of zeros (one 0 with stride 0 will do), so that its log-ratio is S to
/// the last bit. Rewards are then the clamped ones, and `logps/*` show S; who logs
/// log-probabilities sums them plainly as well. It is for losses that read log-ratios alone, and
/// KTO's mismatched rows are reduced likewise. The gradient passes inside the bounds and on them,
/// as it did in the original: from torch 2.14 on the derivative of its clamp is 0 on a bound. An
/// infinite log-ratio is clamped like any other; NaN stays NaN.
struct token_reducer {
  const_any_row log_prob{};   ///< an element for each row of the batch
  const_any_row reference{};  ///< of the reference, likewise; empty: no log-ratios are made
  double log_epsilon_P = -no_bound;
  double log_epsilon_R = no_bound;
  /// Whether tokens are counted only where x_t is not 0, as HALOs does for its averages over
  /// log-ratios; a sequence with scored tokens counts at least 1. Where all are 0, as at step 0,
  /// the average is then 0, and 0 / 0 in HALOs. Prefer the number of scored tokens: this one
  /// depends on two floating-point numbers being equal.
  bool count_nonzero = false;
  strided_span<const std::int32_t> public_tokens{};  ///< one for each sequence; empty: all
  double ld_alpha = 1;                               ///< inside [0, 1]

  /// With the bounds of HALOs.
  PROSPECT_HD static token_reducer humanline(const const_any_row& log_prob,
                                             const const_any_row& reference) noexcept {
    token_reducer by;
    by.log_prob = log_prob;
    by.reference = reference;
    by.log_epsilon_P = -1.0;
    by.log_epsilon_R = 1.5;
    return by;
  }

  /// x_t.
  PROSPECT_HD double term(std::int64_t t) const noexcept {
    const auto x = log_prob.get<double>(t);
    return reference.empty() ? x
                             : clamp(x - reference.get<double>(t), log_epsilon_P, log_epsilon_R);
  }
  /// Whether the gradient reaches the log-prob of token t.
  PROSPECT_HD bool passes(std::int64_t t) const noexcept {
    if (reference.empty()) return true;
    const double x = log_prob.get<double>(t) - reference.get<double>(t);
    return !(x < log_epsilon_P || x > log_epsilon_R);
  }
  /// Whether w_t depends on the place of a token among the scored ones.
  PROSPECT_HD bool by_rank() const noexcept { return !public_tokens.empty(); }
  /// w of the scored token that has `rank` others in front of it.
  PROSPECT_HD double weight(std::int64_t i, std::int64_t rank) const noexcept {
    return !by_rank() || rank < public_tokens[i] ? 1.0 : ld_alpha;
  }
};

/// Which two of n sequences make a pair.
class sequence_pairs {
 public:
  /// Chosen sequences are the first half, rejected ones the second.
  PROSPECT_INLINE static sequence_pairs halves() noexcept { return {}; }
  /// Pair i is sequences `chosen[i]` and `rejected[i]`; some may be in none.
  PROSPECT_INLINE static sequence_pairs indexed(index_row chosen, index_row rejected) noexcept {
    sequence_pairs pairs;
    pairs.chosen_ = chosen;
    pairs.rejected_ = rejected;
    pairs.halves_ = false;
    return pairs;
  }

  /// How many pairs there are among n sequences.
  PROSPECT_HD std::int64_t size(std::int64_t n) const noexcept {
    return halves_ ? n / 2 : chosen_.size();
  }
  PROSPECT_HD std::int64_t chosen(std::int64_t i) const noexcept {
    return halves_ ? i : chosen_[i];
  }
  PROSPECT_HD std::int64_t rejected(std::int64_t i, std::int64_t n) const noexcept {
    return halves_ ? n / 2 + i : rejected_[i];
  }

  /// Why these are no pairs of n sequences, as far as it shows without a look at indices, which may
  /// lie on a device; or nullptr.
  PROSPECT_INLINE const char* problem(std::int64_t n) const noexcept {
    if (halves_) {
      return n % 2 == 0 ? nullptr
                        : "chosen and rejected are missing, and n is odd: it has no halves";
    }
    if (chosen_.problem() != nullptr) return "chosen is no row of indices in any memory";
    if (rejected_.problem() != nullptr) return "rejected is no row of indices in any memory";
    return chosen_.size() == rejected_.size() ? nullptr : "rejected and chosen differ in size";
  }

 private:
  index_row chosen_, rejected_;
  bool halves_ = true;
};

namespace detail {

/// What makes the numbers and the choice of rows of a reducer senseless, or nullptr.
PROSPECT_INLINE const char* problem(const token_reducer& by) noexcept {
  if (!(by.ld_alpha >= 0 && by.ld_alpha <= 1)) return "ld_alpha must lie inside [0, 1]";
  if (!(by.log_epsilon_P <= by.log_epsilon_R)) {
    return "log_epsilon_P must not be above log_epsilon_R";
  }
  const bool clamps = by.log_epsilon_P > -no_bound || by.log_epsilon_R < no_bound;
  if (by.reference.empty() && !by.log_prob.empty() && (clamps || by.count_nonzero)) {
    return "reference is missing: bounds and count_nonzero are about log-ratios";
  }
  return nullptr;
}

}  // namespace detail

}  // namespace prospect::inline v2
PROSPECT_STRICT_END
