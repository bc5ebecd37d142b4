// Which oracle a built-in loss is held against, and the lists of built-in losses from losses.def.
// A loss without an overload here is still tested against finite differences.

#pragma once

#include <prospect/losses/losses.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <functional>
#include <limits>
#include <string_view>
#include <tuple>
#include <utility>

#include "closeness.hpp"
#include "oracle/losses.hpp"

namespace testing {

using oracle::real;

/// What the textbook is told about a pair: log-ratios in nats and numbers of scored tokens.
struct textbook_pair {
  real chosen, rejected;
  real chosen_tokens = 1, rejected_tokens = 1;
};

struct textbook_answer {
  real log_ratio;
  bool desirable;
  real z = 0;
};

/// What a loss of tokens is asked about; none of them has an oracle here.
struct token_point {
  real policy, ratio, reference_ratio, advantage, sum, tokens;
};

inline oracle::paired_value textbook(const prospect::dpo& l, const textbook_pair& p) {
  return oracle::dpo<oracle::real>(p.chosen, p.rejected, l.beta, l.label_smoothing);
}
inline oracle::paired_value textbook(const prospect::robust_dpo& l, const textbook_pair& p) {
  return oracle::robust_dpo<oracle::real>(p.chosen, p.rejected, l.beta, l.label_smoothing);
}
inline oracle::paired_value textbook(const prospect::hinge& l, const textbook_pair& p) {
  return oracle::hinge<oracle::real>(p.chosen, p.rejected, l.beta);
}
inline oracle::paired_value textbook(const prospect::ipo& l, const textbook_pair& p) {
  return oracle::ipo<oracle::real>(p.chosen, p.rejected, p.chosen_tokens, p.rejected_tokens, l.tau);
}
inline oracle::paired_value textbook(const prospect::ipo_sum& l, const textbook_pair& p) {
  return oracle::ipo_sum<oracle::real>(p.chosen, p.rejected, l.tau);
}
inline oracle::unpaired_value textbook(const prospect::kto& l, const textbook_answer& a) {
  return oracle::kto<oracle::real>(a.log_ratio, a.desirable, a.z, l.beta, l.desirable_weight,
                                   l.undesirable_weight);
}
inline oracle::unpaired_value textbook(const prospect::kto_zero& l, const textbook_answer& a) {
  return oracle::kto_zero<oracle::real>(a.log_ratio, a.desirable, l.beta, l.desirable_weight,
                                        l.undesirable_weight);
}

template <class L>
concept in_paired_textbook = requires(const L& loss, const textbook_pair& p) { textbook(loss, p); };
template <class L>
concept in_unpaired_textbook =
    requires(const L& loss, const textbook_answer& a) { textbook(loss, a); };

using every_loss = prospect::detail::builtin_losses;
/// Losses of tokens that hold a part of themselves as a constant: their gradient is not that of
/// their value.
template <class L>
constexpr bool holds_a_part() {
  for (const char* name : {"dft", "cispo", "vespo", "gspo_token", "dppo"}) {
    if (L::name == name) return true;
  }
  return false;
}
/// Those that have an oracle above.
using textbook_paired = std::tuple<prospect::dpo, prospect::robust_dpo, prospect::ipo,
                                   prospect::ipo_sum, prospect::hinge>;
using textbook_unpaired = std::tuple<prospect::kto, prospect::kto_zero>;

/// A pair or an answer as a loss of the library sees it: under one reference, and with sums that
/// can be log-probabilities, for the losses that look at those.
template <class R>
prospect::pair<R> sample(const textbook_pair& p) {
  const real reference = -30 - std::max({real(0), p.chosen, p.rejected});
  const auto side = [&](real ratio, real tokens) {
    return prospect::completion<R>{.policy = static_cast<R>(reference + ratio),
                                   .ratio = static_cast<R>(ratio),
                                   .tokens = static_cast<R>(tokens)};
  };
  return {.chosen = side(p.chosen, p.chosen_tokens),
          .rejected = side(p.rejected, p.rejected_tokens)};
}
template <class R>
prospect::unpaired<R> sample(const textbook_answer& a) {
  const real policy = a.log_ratio - 30 - std::max(real(0), a.log_ratio);
  return {.answer = {.policy = static_cast<R>(policy),
                     .ratio = static_cast<R>(a.log_ratio),
                     .tokens = R(1)},
          .z = static_cast<R>(a.z),
          .desirable = a.desirable};
}

template <class R>
prospect::token<R> sample(const token_point& t) {
  const auto as = [](real x) { return static_cast<R>(x); };
  return {.policy = as(t.policy),
          .ratio = as(t.ratio),
          .reference_ratio = as(t.reference_ratio),
          .advantage = as(t.advantage),
          .sum = as(t.sum),
          .tokens = as(t.tokens)};
}

/// The same point with its margin higher: each log-ratio moved by `by` nats.
inline textbook_pair shifted(textbook_pair p, real by) {
  p.chosen += by;
  p.rejected -= by;
  return p;
}
inline textbook_answer shifted(textbook_answer a, real by) {
  a.log_ratio += by;
  return a;
}

/// How large the numbers are that the margin is formed from.
inline real magnitude(const textbook_pair& p) { return std::abs(p.chosen) + std::abs(p.rejected); }
inline real magnitude(const textbook_answer& a) { return std::abs(a.log_ratio) + std::abs(a.z); }

inline std::array<real, 3> numbers(const oracle::paired_value& v) {
  return {v.loss, v.d_chosen, v.d_rejected};
}
inline std::array<real, 3> numbers(const oracle::unpaired_value& v) {
  return {v.loss, v.d_policy, v.d_z};
}
template <class R>
std::array<real, 3> numbers(const prospect::paired_value<R>& v) {
  return {v.loss, v.d_chosen, v.d_rejected};
}
template <class R>
std::array<real, 3> numbers(const prospect::unpaired_value<R>& v) {
  return {v.loss, v.d_policy, v.d_z};
}

template <class R>
std::array<real, 3> numbers(const prospect::token_value<R>& v) {
  return {v.loss, v.d_policy, v.d_sum};
}

/// Loss and gradient by the oracle, and how far a computation in R may be off.
struct expectation {
  std::array<real, 3> want, tolerance;
};

/// A few roundings of R. Rounding the log-ratios moves the margin before any formula sees it; how
/// much that matters is asked of the oracle.
template <class R, class L, class Point>
expectation expected(const L& loss, const Point& at) {
  const real epsilon = 4 * std::numeric_limits<R>::epsilon();
  const real by =
      epsilon / 2 * (magnitude(at) + 1 / static_cast<real>(prospect::reward_scale(loss)));
  const auto want = numbers(textbook(loss, at)), low = numbers(textbook(loss, shifted(at, -by))),
             high = numbers(textbook(loss, shifted(at, by)));
  expectation result{want, {}};
  for (std::size_t i = 0; i < want.size(); ++i) {
    result.tolerance[i] = epsilon * std::abs(want[i]) +
                          std::max(std::abs(high[i] - want[i]), std::abs(low[i] - want[i])) +
                          std::numeric_limits<R>::denorm_min();
  }
  return result;
}

/// A loss as those see it who hold results against the textbook: their checks are compiled for each
/// kind of loss, not for each loss.
template <class Point>
struct textbook_loss {
  std::string_view name;
  double reward_scale;
  std::function<expectation(const Point&)> expected;
};
template <class R, class Point, class L>
textbook_loss<Point> by_the_textbook(const L& loss) {
  return {.name = L::name,
          .reward_scale = prospect::reward_scale(loss),
          .expected = [loss](const Point& at) { return expected<R>(loss, at); }};
}

template <class R, class L, class Point>
bool agrees(const L& loss, const Point& at, const auto& got) {
  const expectation e = expected<R>(loss, at);
  const auto found = numbers(got);
  return near(found[0], e.want[0], 0, e.tolerance[0]) &&
         near(found[1], e.want[1], 0, e.tolerance[1]) &&
         near(found[2], e.want[2], 0, e.tolerance[2]);
}

/// e^-x - 1 + x, as a series: for |x| of at most a few.
inline long double textbook_k3(long double x) {
  long double sum = 0;
  for (long double term = x * x / 2, k = 3; std::abs(term) > 1e-24L; term *= -x / k++) {
    sum += term;
  }
  return sum;
}

}  // namespace testing
