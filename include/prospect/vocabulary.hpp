// Log-probabilities from sums: what one row of logits, or a rank's part of it, boils down to; how
// parts combine; and what follows from the whole. Every back end ends its forward pass here, so a
// vocabulary that is split over ranks and one that is not share their formulas.
#pragma once

#include <prospect/core/math.hpp>
#include <prospect/core/strict.hpp>

#include <cstdint>
#include <limits>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2 {

/// Sums over the logits z of a row, or of a contiguous part of it, in fp64. The target token's own
/// logit is kept apart: with q = sum over the others of e^(z_j - z_y),
///
///   log p = -log(1 + q)   and   1 - p = q / (1 + q)
///
/// keep their relative accuracy where the model is confident, which log(sum) - z_y does not.
///
/// A plain value of doubles: to be gathered over ranks as it is.
struct vocabulary_partial {
  static constexpr double none = -std::numeric_limits<double>::infinity();

  double shift = 0;         ///< close to a logit not far below the highest; means nothing if there
                            ///< are no exponentials
  double exponentials = 0;  ///< sum of e^(z - shift)
  double squares = 0;       ///< sum of e^(2 (z - shift)); NaN without statistics, as the next two
  double weighted = 0;      ///< sum of (z - shift) e^(z - shift)
  double logits = 0;        ///< sum of z
  double tokens = 0;        ///< number of logits, the target's included
  double targets = 0;       ///< 1 if the target is in this part, else 0
  double target = none;     ///< its logit
  double before = none;     ///< highest logit in front of the target (of all, where it is not here)
  double after = none;      ///< highest logit behind the target

  /// The same sums relative to another logit.
  PROSPECT_HD void shift_to(double other) noexcept {
    if (exponentials != 0) {
      const double by = other - shift;
      const double factor = std::exp(-by);
      weighted = factor * (weighted - by * exponentials);
      exponentials *= factor;
      squares *= factor * factor;
    }
    shift = other;
  }
};

/// Two neighbouring parts of one row, `a` in front of `b`.
///
/// Exact up to rounding, not associative to the last bit: whoever wants the same bits everywhere
/// combines in the same order everywhere. The library's order is from the first part to the last,
/// ((p0 + p1) + p2) + ...
PROSPECT_HD inline vocabulary_partial combine(vocabulary_partial a, vocabulary_partial b) noexcept {
  const bool b_decides = a.exponentials == 0 || (b.exponentials != 0 && b.shift > a.shift);
  const double shift = b_decides ? b.shift : a.shift;
  a.shift_to(shift);
  b.shift_to(shift);
  const auto higher = [](double x, double y) { return x > y ? x : y; };
  return {.shift = shift,
          .exponentials = a.exponentials + b.exponentials,
          .squares = a.squares + b.squares,
          .weighted = a.weighted + b.weighted,
          .logits = a.logits + b.logits,
          .tokens = a.tokens + b.tokens,
          .targets = a.targets + b.targets,
          .target = a.targets != 0 ? a.target : b.target,
          .before = a.targets != 0 ? a.before : higher(a.before, b.before),
          .after = a.targets != 0 ? higher(a.after, higher(b.before, b.after)) : b.after};
}

/// What a row says about its target token. Entropy in nats.
struct token_scores {
  double log_prob;        ///< log p(target), at most 0
  double lse;             ///< log of the sum of e^z
  double entropy;         ///< -sum p log p
  double sum_squares;     ///< sum p^2: the expected probability of a token (WPO)
  double mean_logit;      ///< mean of z over the vocabulary
  bool target_is_argmax;  ///< of several highest logits the first one counts
};

namespace detail {

inline constexpr double nan = std::numeric_limits<double>::quiet_NaN();

/// What a row is finished with; a back end may have faster ones. Powers of what is at most 0,
/// logarithms of what is at least 1 but for rounding.
struct finishing_functions {
  PROSPECT_HD static double exp(double x) noexcept { return std::exp(x); }
  PROSPECT_HD static double log1p(double x) noexcept { return std::log1p(x); }
  PROSPECT_HD static double log(double x) noexcept { return std::log(x); }
};

}  // namespace detail

/// From the sums over a whole row. NaN where a logit is NaN or +inf, where no token is possible, or
/// where no part held the target.
template <class Functions = detail::finishing_functions>
PROSPECT_HD inline token_scores finish(const vocabulary_partial& p) noexcept {
  constexpr double nan = detail::nan;
  const bool others = p.exponentials != 0;
  const bool possible = detail::is_finite(p.target);
  const bool impossible = !possible && !detail::is_nan(p.target) && p.target < 0;
  if (!(possible || (impossible && others)) || p.targets == 0 || detail::is_nan(p.exponentials)) {
    return {nan, nan, nan, nan, nan, false};
  }
  token_scores scores{};
  // Everything relative to the larger of the two, so that nothing overflows or cancels.
  if (!others || p.target >= p.shift) {
    const double factor = others ? Functions::exp(p.shift - p.target) : 0.0;
    const double q = p.exponentials * factor;
    const double log_sum = Functions::log1p(q);
    const double weighted =
        others ? factor * (p.weighted + (p.shift - p.target) * p.exponentials) : 0.0;
    scores.log_prob = 0.0 - log_sum;
    scores.lse = p.target + log_sum;
    scores.entropy = log_sum - weighted / (1 + q);
    scores.sum_squares = (p.squares * factor * factor + 1) / ((1 + q) * (1 + q));
  } else {
    const double below = p.target - p.shift;
    const double own = Functions::exp(below);
    const double sum = p.exponentials + own;
    const double log_sum = Functions::log(sum);
    const double weighted = p.weighted + (own > 0 ? own * below : 0.0);
    scores.log_prob = below - log_sum;
    scores.lse = p.shift + log_sum;
    scores.entropy = log_sum - weighted / sum;
    scores.sum_squares = (p.squares + own * own) / (sum * sum);
  }
  // Rounding may leave a certain token's entropy a hair below 0.
  if (scores.entropy < 0) scores.entropy = 0;
  scores.mean_logit = (p.logits + p.target) / p.tokens;
  scores.target_is_argmax = p.target > p.before && p.target >= p.after;
  return scores;
}

}  // namespace prospect::inline v2
PROSPECT_STRICT_END
