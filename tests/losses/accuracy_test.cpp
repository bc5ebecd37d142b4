// Losses of one number, with a scale that is a power of two, are within 4 ulp in fp32 on the whole
// line: value and gradient, densely sampled by default, on all 2^32 floats in the opt-in test. That
// takes an hour or two: it may be interrupted, and what it finds may be kept (record.hpp). Each
// formula is here once: those that put another margin into the same one are held by their vectors.

#include <prospect/losses/losses.hpp>
#include <prospect/losses/parts/scores.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string_view>
#include <utility>

#include "catch.hpp"
#include "closeness.hpp"
#include "core/float_sweep.hpp"
#include "core/record.hpp"
#include "losses/links.hpp"

namespace {

using testing::floats;
using testing::ulps;
namespace links = testing::links;

/// The largest error of loss and gradient at x.
template <class L, class Point, class Exact>
double error_at(const L& loss, const Point& at, const Exact& exact, float x) {
  if (std::isinf(x)) return 0;  // an infinite log-ratio is reported as non-finite, not scored
  const auto got = prospect::differentiate(loss, at(x));
  if (std::isnan(x)) return std::isnan(got.loss) ? 0 : std::numeric_limits<double>::infinity();
  const testing::link want = exact(x);
  const auto [d, other] = [&] {
    if constexpr (prospect::paired_loss<L>) return std::pair{got.d_chosen, got.d_rejected};
    if constexpr (!prospect::paired_loss<L>) return std::pair{got.d_policy, got.d_z};
  }();
  const auto of_slope = [&](float slope, double right) {
    if (std::abs(right) < want.least && std::abs(slope) < want.least) return 0.0;
    return ulps(slope, right, want.slope_terms);
  };
  return std::max({ulps(got.loss, want.loss, want.loss_terms), of_slope(d, want.slope),
                   of_slope(other, want.other)});
}

template <class L, class Point, class Exact>
void check_line(const char* name, floats which, const L& loss, const Point& at,
                const Exact& exact) {
  const auto measure = [&] {
    return testing::worst_over(which, [&](float x) { return error_at(loss, at, exact, x); });
  };
  std::string_view of = "scores";
  if constexpr (!prospect::detail::is_scored<L>) of = L::name;
  DYNAMIC_SECTION(name) {  // which `-c NAME` runs alone
    const auto worst = which == floats::all ? testing::recorded(of, name, measure) : measure();
    CAPTURE(worst.at);
    CHECK(worst.error <= 4);
  }
}

/// The chosen completion at x, the rejected one at 0.
prospect::pair<float> of_ratio(float x) {
  return {.chosen = {.policy = -1, .ratio = x, .tokens = 1},
          .rejected = {.policy = -1, .ratio = 0, .tokens = 1}};
}
prospect::pair<float> of_four_tokens(float x) {
  prospect::pair<float> p = of_ratio(x);
  p.chosen.tokens = 4;
  return p;
}
/// The same without a reference.
prospect::pair<float> of_policy(float x) {
  return {.chosen = {.policy = x, .ratio = x, .tokens = 1},
          .rejected = {.policy = 0, .ratio = 0, .tokens = 1}};
}
prospect::unpaired<float> good(float x) {
  return {.answer = {.policy = x, .ratio = x, .tokens = 1}, .z = 0, .desirable = true};
}
prospect::unpaired<float> bad(float x) {
  return {.answer = {.policy = x, .ratio = x, .tokens = 1}, .z = 0, .desirable = false};
}

void check_pairs(floats which) {
  using namespace prospect;
  check_line("dpo", which, dpo{.beta = 1}, of_ratio, [](double x) { return links::dpo(x, 1, 0); });
  check_line("dpo, beta 1/8", which, dpo{.beta = 0.125}, of_ratio,
             [](double x) { return links::dpo(x, 0.125, 0); });
  check_line("cdpo", which, dpo{.beta = 1, .label_smoothing = 0.25}, of_ratio,
             [](double x) { return links::dpo(x, 1, 0.25); });
  check_line("robust_dpo", which, robust_dpo{.beta = 1, .label_smoothing = 0.25}, of_ratio,
             [](double x) { return links::robust_dpo(x, 0.25); });
  check_line("hinge", which, hinge{.beta = 1}, of_ratio,
             [](double x) { return links::of(oracle::hinge<double>(x, 0, 1)); });
  check_line("ipo_sum", which, ipo_sum{.tau = 0.5}, of_ratio,
             [](double x) { return links::of(oracle::ipo_sum<double>(x, 0, 0.5)); });
  check_line("ipo", which, ipo{.tau = 0.5}, of_four_tokens,
             [](double x) { return links::of(oracle::ipo<double>(x, 0, 4, 1, 0.5)); });
  check_line("exo", which, exo{.beta = 1, .label_smoothing = 0.25}, of_ratio,
             [](double x) { return links::exo(x, 0.25); });
  check_line("discopop", which, discopop{.beta = 1, .tau = 0.5}, of_ratio,
             [](double x) { return links::discopop(x, 0.5); });
  check_line("neg_sigmoid", which, neg_sigmoid{.beta = 1}, of_ratio, links::neg_sigmoid);
  check_line("nca", which, nca{.beta = 1}, of_ratio, links::nca);
  check_line("apo_zero", which, apo_zero{.beta = 1}, of_ratio, links::apo_zero);
  check_line("sppo_hard", which, sppo_hard{.beta = 0.5}, of_ratio, links::sppo_hard);
  check_line("alphapo", which, alphapo{.beta = 1, .gamma = 0, .alpha = 0.25}, of_policy,
             [](double x) { return links::alphapo(x, 0.25); });
}

void check_scores(floats which) {
  using namespace prospect;
  check_line("dpo, forward KL", which, scored{dpo{.beta = 1}, forward_kl}, of_ratio,
             [](double x) { return links::power_score(x, 0); });
  check_line("dpo, alpha 1/2", which, scored{dpo{.beta = 1}, alpha_divergence(0.5)}, of_ratio,
             [](double x) { return links::power_score(x, 0.5); });
  check_line("dpo, Jensen-Shannon", which, scored{dpo{.beta = 1}, js_divergence}, of_ratio,
             links::jensen_shannon);
}

void check_thumbs(floats which) {
  using namespace prospect;
  const kto weighted{.beta = 1, .desirable_weight = 1.5, .undesirable_weight = 0.75};
  check_line("kto, desirable", which, weighted, good,
             [](double x) { return links::of(oracle::kto<double>(x, true, 0, 1, 1.5, 0.75)); });
  check_line("kto, undesirable", which, weighted, bad,
             [](double x) { return links::of(oracle::kto<double>(x, false, 0, 1, 1.5, 0.75)); });
  check_line("kto_zero, desirable", which, kto_zero{.beta = 2}, good,
             [](double x) { return links::of(oracle::kto_zero<double>(x, true, 2, 1, 1)); });
  check_line("kto_zero, undesirable", which, kto_zero{.beta = 2}, bad,
             [](double x) { return links::of(oracle::kto_zero<double>(x, false, 2, 1, 1)); });
  check_line("kto_logsigmoid, desirable", which, kto_logsigmoid{.beta = 1}, good,
             [](double x) { return links::kto_logsigmoid(x, 1); });
  check_line("kto_logsigmoid, undesirable", which, kto_logsigmoid{.beta = 1}, bad,
             [](double x) { return links::kto_logsigmoid(x, -1); });
  check_line("a2po", which, a2po{.beta2 = 0.125}, good,
             [](double x) { return links::a2po(x, 0.125); });
}

}  // namespace

TEST_CASE("losses of pairs are within 4 ulp in fp32, densely sampled", "[losses]") {
  check_pairs(floats::dense);
}
TEST_CASE("losses of scores are within 4 ulp in fp32, densely sampled", "[losses]") {
  check_scores(floats::dense);
}
TEST_CASE("losses of thumbs are within 4 ulp in fp32, densely sampled", "[losses]") {
  check_thumbs(floats::dense);
}

TEST_CASE("losses are within 4 ulp on all 2^32 floats", "[losses][.exhaustive]") {
  check_pairs(floats::all);
  check_scores(floats::all);
  check_thumbs(floats::all);
}
