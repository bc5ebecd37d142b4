// Losses of one number, with a scale that is a power of two, are within 4 ulp in fp32 on the whole
// line: value and gradient, densely sampled by default, on all 2^32 floats in the opt-in test. That
// takes hours: it may be interrupted, and what it finds may be kept (record.hpp).

#include <prospect/losses/losses.hpp>

#include <algorithm>
#include <cmath>
#include <limits>

#include "catch.hpp"
#include "closeness.hpp"
#include "core/float_sweep.hpp"
#include "losses/record.hpp"
#include "losses/textbook.hpp"

namespace {

using oracle::real;
using testing::floats;
using testing::ulps;

/// The magnitudes of what a formula subtracts, where its value or slope crosses zero.
struct cancelling {
  real loss = 0, slope = 0;
};

constexpr auto nothing_cancels = [](real) { return cancelling{}; };

/// The largest error of loss and gradient at log-ratio x (for a pair: against a rejected one at 0).
template <class L, class Point, class Terms>
double error_at(const L& loss, const Point& at, const Terms& terms, float x) {
  if (std::isinf(x)) return 0;  // an infinite log-ratio is reported as non-finite, not scored
  const auto got = prospect::differentiate(loss, testing::sample<float>(at(x)));
  if (std::isnan(x)) return std::isnan(got.loss) ? 0 : std::numeric_limits<double>::infinity();
  const auto want = testing::numbers(textbook(loss, at(x)));
  const cancelling scale = terms(static_cast<real>(x));
  const auto found = testing::numbers(got);
  return std::max({ulps(static_cast<float>(found[0]), want[0], scale.loss),
                   ulps(static_cast<float>(found[1]), want[1], scale.slope),
                   ulps(static_cast<float>(found[2]), want[2], scale.slope)});
}

template <class L, class Point, class Terms>
void check_line(const char* name, floats which, const L& loss, const Point& at,
                const Terms& terms) {
  const auto measure = [&] {
    return testing::worst_over(which, [&](float x) { return error_at(loss, at, terms, x); });
  };
  DYNAMIC_SECTION(name) {  // which `-c NAME` runs alone
    const auto worst = which == floats::all ? testing::recorded(L::name, name, measure) : measure();
    CAPTURE(worst.at);
    CHECK(worst.error <= 4);
  }
}

void check_all_lines(floats which) {
  const auto pair = [](float x) { return testing::textbook_pair{x, 0}; };
  const auto four_tokens = [](float x) { return testing::textbook_pair{x, 0, 4, 1}; };
  const auto good = [](float x) { return testing::textbook_answer{x, true}; };
  const auto bad = [](float x) { return testing::textbook_answer{x, false}; };

  check_line("dpo", which, prospect::dpo{.beta = 1}, pair, nothing_cancels);
  check_line("dpo, beta 1/8", which, prospect::dpo{.beta = 0.125}, pair, nothing_cancels);
  check_line("cdpo", which, prospect::dpo{.beta = 1, .label_smoothing = 0.25}, pair,
             [](real) { return cancelling{.slope = 0.25L}; });
  check_line("robust_dpo", which, prospect::robust_dpo{.beta = 1, .label_smoothing = 0.25}, pair,
             [](real x) { return cancelling{.loss = std::abs(x) / 2}; });
  check_line("hinge", which, prospect::hinge{.beta = 1}, pair, nothing_cancels);
  check_line("ipo_sum", which, prospect::ipo_sum{.tau = 0.5}, pair, nothing_cancels);
  check_line("ipo", which, prospect::ipo{.tau = 0.5}, four_tokens, nothing_cancels);

  const prospect::kto kto{.beta = 1, .desirable_weight = 1.5, .undesirable_weight = 0.75};
  check_line("kto, desirable", which, kto, good, nothing_cancels);
  check_line("kto, undesirable", which, kto, bad, nothing_cancels);
  check_line("kto_zero, desirable", which, prospect::kto_zero{.beta = 2}, good, nothing_cancels);
  check_line("kto_zero, undesirable", which, prospect::kto_zero{.beta = 2}, bad, nothing_cancels);
}

}  // namespace

TEST_CASE("losses are within 4 ulp in fp32, densely sampled", "[losses]") {
  check_all_lines(floats::dense);
}

TEST_CASE("losses are within 4 ulp on all 2^32 floats", "[losses][.exhaustive]") {
  check_all_lines(floats::all);
}
