// Rows that are no numbers: each is counted and named, and touches no other row, not even where
// rows are coupled through a class mean. At the end, two ways in which that coupling differs from
// what looks like it: micro-batches, and the same-class baseline.

#include <prospect/cpu/sequences.hpp>
#include <prospect/losses/losses.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "catch.hpp"
#include "cpu/rows.hpp"
#include "losses/some.hpp"
#include "oracle/scalar.hpp"
#include "random.hpp"
#include "refusals.hpp"
#include "special_numbers.hpp"

namespace {

using oracle::real;
using prospect::cross_class;
using prospect::kto;
using prospect::normaliser;
using prospect::cpu::evaluate;
using testing::same_bits;
using testing::stored;

using testing::infinity;
constexpr double not_numbers[] = {std::numeric_limits<double>::quiet_NaN(), infinity, -infinity};

template <class S>
std::vector<S> row(std::initializer_list<double> values) {
  std::vector<S> r;
  for (const double x : values) r.push_back(stored<S>(x));
  return r;
}

template <class S>
struct five_pairs {
  std::vector<S> chosen = row<S>({-10, -25, -3, -8, -31});
  std::vector<S> rejected = row<S>({-12, -20, -4, -8.5, -30});
  std::vector<S> reference_chosen = row<S>({-11, -22, -3.5, -9, -28});
  std::vector<S> reference_rejected = row<S>({-11.5, -24, -3, -7, -29});
  std::vector<std::int32_t> chosen_tokens{5, 9, 2, 4, 11}, rejected_tokens{4, 8, 3, 5, 12};
  std::vector<S> loss = std::vector<S>(5), d_chosen = loss, d_rejected = loss;

  std::vector<std::vector<S>*> inputs() {
    return {&chosen, &rejected, &reference_chosen, &reference_rejected};
  }
  std::vector<std::vector<S>*> outputs() { return {&loss, &d_chosen, &d_rejected}; }
  auto run(const auto& with) {
    return evaluate<S>(with,
                       {.policy_chosen = chosen,
                        .policy_rejected = rejected,
                        .reference_chosen = reference_chosen,
                        .reference_rejected = reference_rejected,
                        .chosen_tokens = chosen_tokens,
                        .rejected_tokens = rejected_tokens},
                       {.loss = loss, .d_policy_chosen = d_chosen, .d_policy_rejected = d_rejected},
                       normaliser::over(7));
  }
};

template <class S>
struct five_completions {
  std::vector<S> policy = row<S>({-10, -25, -3, -8, -31});
  std::vector<S> reference = row<S>({-12, -24, -4, -7, -33});
  std::vector<std::uint8_t> desirable = thumbs();
  std::vector<std::int32_t> tokens{5, 9, 2, 4, 11};
  std::vector<S> loss = std::vector<S>(5), d_policy = loss;

  // Not in place: g++ 12 takes a list of bytes there for uninitialised.
  static std::vector<std::uint8_t> thumbs() {
    std::vector<std::uint8_t> up(5, 1);
    up[1] = up[3] = 0;
    return up;
  }
  std::vector<std::vector<S>*> inputs() { return {&policy, &reference}; }
  std::vector<std::vector<S>*> outputs() { return {&loss, &d_policy}; }
  auto run(const auto& with, const auto& point) {
    return evaluate<S>(
        with, {.policy = policy, .reference = reference, .desirable = desirable, .tokens = tokens},
        point, {.loss = loss, .d_policy = d_policy}, normaliser::over(7));
  }
  auto run(const auto& with) { return run(with, prospect::constant_point(0.5)); }
  void erase(std::size_t i) {
    const auto at = static_cast<std::ptrdiff_t>(i);
    for (auto* r : inputs()) r->erase(r->begin() + at);
    for (auto* r : outputs()) r->erase(r->begin() + at);
    desirable.erase(desirable.begin() + at);
    tokens.erase(tokens.begin() + at);
  }
};

/// Reads no reference, and saturates: -inf on either side gives a finite loss.
struct reference_free {
  static constexpr bool branch_free = true;
  template <class T>
  T operator()(const prospect::pair<T>& p) const {
    return prospect::sigmoid(p.rejected.policy - p.chosen.policy);
  }
};

/// Reads both sides, and saturates.
struct saturating {
  static constexpr bool branch_free = true;
  template <class T>
  T operator()(const prospect::pair<T>& p) const {
    return prospect::sigmoid(-p.chosen.log_ratio()) + prospect::sigmoid(p.rejected.log_ratio());
  }
};

/// Each input row in turn holds each such value at each place.
template <class S, template <class> class Batch>
void check_alone(const auto& loss) {
  Batch<S> clean;
  REQUIRE(clean.run(loss).nonfinite.sum == 0);
  for (std::size_t input = 0; input < clean.inputs().size(); ++input) {
    for (const double bad : not_numbers) {
      for (std::size_t at = 0; at < 5; ++at) {
        CAPTURE(input, bad, at);
        Batch<S> spoilt;
        (*spoilt.inputs()[input])[at] = stored<S>(bad);
        const auto metrics = spoilt.run(loss);
        CHECK(metrics.nonfinite.sum == 1);
        CHECK(metrics.nonfinite.count == 5);
        CHECK(metrics.first_nonfinite == static_cast<std::int64_t>(at));
        for (std::size_t k = 0; k < spoilt.outputs().size(); ++k) {
          for (std::size_t i = 0; i < 5; ++i) {
            if (i == at) continue;
            CAPTURE(k, i);
            CHECK(same_bits((*spoilt.outputs()[k])[i], (*clean.outputs()[k])[i]));
          }
        }
      }
    }
  }
}

}  // namespace

TEMPLATE_TEST_CASE("a loss counts and names a row that is no number, and keeps it alone",
                   "[nonfinite]", float, double, prospect::float16, prospect::bfloat16) {
  testing::for_some_losses([]<class L>(const L& loss) {
    CAPTURE(std::string{L::name});
    if constexpr (prospect::paired_loss<L>) {
      check_alone<TestType, five_pairs>(loss);
    } else {
      check_alone<TestType, five_completions>(loss);
    }
  });
}

TEMPLATE_TEST_CASE("a row that is no number is left out of its class mean", "[nonfinite]", float,
                   double, prospect::float16, prospect::bfloat16) {
  using S = TestType;
  for (std::size_t input = 0; input < 2; ++input) {
    for (const double bad : not_numbers) {
      for (std::size_t at = 0; at < 5; ++at) {
        CAPTURE(input, bad, at);
        five_completions<S> spoilt, without;
        (*spoilt.inputs()[input])[at] = stored<S>(bad);
        without.erase(at);
        const auto metrics = spoilt.run(kto{}, cross_class{});
        const auto want = without.run(kto{}, cross_class{});
        REQUIRE(want.nonfinite.sum == 0);
        CHECK(metrics.nonfinite.sum == 1);
        CHECK(metrics.first_nonfinite == static_cast<std::int64_t>(at));
        CHECK(metrics.kl.sum == want.kl.sum);
        CHECK(metrics.kl_unclamped.sum == want.kl_unclamped.sum);
        for (std::size_t k = 0; k < 2; ++k) {
          std::vector<S> others = *spoilt.outputs()[k];
          others.erase(others.begin() + static_cast<std::ptrdiff_t>(at));
          CHECK(same_bits(others, *without.outputs()[k]));
        }
      }
    }
  }
}

TEST_CASE("the first of several such rows is named, and all are counted", "[nonfinite]") {
  five_completions<float> b;
  b.policy[3] = b.policy[1] = static_cast<float>(-infinity);
  for (const auto& metrics : {b.run(kto{}), b.run(kto{}, cross_class{})}) {
    CHECK(metrics.nonfinite.sum == 2);
    CHECK(metrics.first_nonfinite == 1);
  }
}

TEST_CASE("rows that are no numbers are counted wherever they stand in a long batch",
          "[nonfinite]") {
  // Sums carry on: what one row spoils must not count against those after it.
  constexpr std::size_t n = 5000;
  std::vector<float> policy(n, -60), out(n);
  const std::vector<float> other(n, -70);
  const std::vector<std::uint8_t> desirable(n, 1);
  double spoilt = 0;
  for (const std::size_t at : {7U, 8U, 300U, 1023U, 4097U, 4999U}) {
    CAPTURE(at);
    policy[at] = static_cast<float>(at % 2 == 0 ? -infinity : std::nan(""));
    ++spoilt;
    const auto pairs = evaluate<float>(prospect::dpo{},
                                       {.policy_chosen = policy,
                                        .policy_rejected = other,
                                        .reference_chosen = other,
                                        .reference_rejected = other},
                                       {.loss = out});
    const auto without_reference = evaluate<float>(
        reference_free{}, {.policy_chosen = other, .policy_rejected = policy}, {.loss = out});
    const auto completions =
        evaluate<float>(kto{}, {.policy = policy, .reference = other, .desirable = desirable},
                        prospect::constant_point(0), {.loss = out});
    CHECK(pairs.nonfinite.sum == spoilt);
    CHECK(pairs.first_nonfinite == 7);
    CHECK(without_reference.nonfinite.sum == spoilt);
    CHECK(without_reference.first_nonfinite == 7);
    CHECK(completions.nonfinite.sum == spoilt);
    CHECK(completions.first_nonfinite == 7);
  }
}

TEST_CASE("an impossible completion is saturated in KTO, and reported all the same",
          "[nonfinite]") {
  // log 0 under the policy: sigmoid saturates to a finite loss that hides the broken row.
  five_completions<double> b;
  b.policy[2] = -infinity;
  const auto metrics = b.run(kto{});
  CHECK(metrics.nonfinite.sum == 1);
  CHECK(metrics.first_nonfinite == 2);
}

TEST_CASE("a result too large for its storage type is counted", "[nonfinite]") {
  const auto count = []<class S>(S) {
    const std::vector<S> chosen = row<S>({-1, 0, -1}), rejected = row<S>({-1, -1000, -1});
    const std::vector<S> reference = row<S>({0, 0, 0});
    std::vector<S> loss(3), d_chosen(3), d_rejected(3);
    const auto metrics =
        evaluate<S>(prospect::ipo_sum{},
                    {.policy_chosen = chosen,
                     .policy_rejected = rejected,
                     .reference_chosen = reference,
                     .reference_rejected = reference},
                    {.loss = loss, .d_policy_chosen = d_chosen, .d_policy_rejected = d_rejected});
    CHECK(metrics.first_nonfinite == (metrics.nonfinite.sum > 0 ? 1 : -1));
    return metrics.nonfinite.sum;
  };
  // (1000 - 5)^2 is beyond 65504.
  CHECK(count(prospect::float16{}) == 1);
  CHECK(count(prospect::bfloat16{}) == 0);
  CHECK(count(float{}) == 0);
}

TEST_CASE("what only one side holds is found there", "[nonfinite]") {
  // A sigmoid makes a finite loss of an impossible side: only the input tells.
  for (const double bad : not_numbers) {
    for (std::size_t input = 0; input < 4; ++input) {
      CAPTURE(bad, input);
      five_pairs<float> b;
      (*b.inputs()[input])[4] = static_cast<float>(bad);
      const auto metrics = b.run(saturating{});
      CHECK(metrics.nonfinite.sum == 1);
      CHECK(metrics.first_nonfinite == 4);
    }
  }
}

TEST_CASE("a given point that is no number is refused by name, whatever the loss reads",
          "[nonfinite][errors]") {
  five_completions<float> b;
  for (const double bad : not_numbers) {
    CAPTURE(bad);
    for (const prospect::reference_point& point :
         {prospect::reference_point{.z = bad, .raw = 0}, prospect::reference_point{.raw = bad},
          prospect::reference_point::from({.sum = bad, .count = 3})}) {
      CHECK(testing::refuses("reference_point", [&] { b.run(kto{}, point); }));
      CHECK(testing::refuses("reference_point", [&] { b.run(prospect::kto_zero{}, point); }));
    }
  }
  // Finite, and more than fp32 has a number for.
  CHECK(testing::refuses("reference_point", [&] {
    b.run(kto{}, prospect::reference_point{.z = 1e300, .raw = 1e300});
  }));
  five_completions<double> wide;
  CHECK_NOTHROW(wide.run(kto{}, prospect::reference_point{.z = 1e300, .raw = 1e300}));
  for (const float x : b.loss) CHECK(x == 0);  // nothing was written
}

TEST_CASE("a loss that reads no reference point reports none", "[nonfinite]") {
  five_completions<float> b;
  for (const auto& metrics :
       {b.run(prospect::kto_zero{}, prospect::reference_point{.z = 123, .raw = 123}),
        b.run(prospect::kto_zero{}, cross_class{}),
        b.run(kto{}, prospect::reference_point::from({}))}) {
    CHECK_FALSE(metrics.kl.present());
    CHECK_FALSE(metrics.kl_unclamped.present());
    CHECK(metrics.kl.sum == 0);
  }
  CHECK(b.run(kto{.beta = 1e-30}, prospect::reference_point{.z = 2, .raw = 2}).kl.mean() == 2);
  CHECK(b.run(kto{.beta = 1e30}, prospect::reference_point{.z = 2, .raw = 2}).kl.mean() == 2);
  CHECK(b.run(kto{.desirable_weight = 0}, prospect::reference_point{.z = 2, .raw = 2}).kl.mean() ==
        2);
  CHECK(b.run(kto{}, prospect::reference_point{.z = 0, .raw = -2}).kl_unclamped.mean() == -2);
}

TEMPLATE_TEST_CASE("a mismatched row that is no number is left out and counted", "[nonfinite]",
                   float, double, prospect::float16, prospect::bfloat16) {
  using S = TestType;
  constexpr std::size_t n = 5000;
  const std::vector<S> clean(n, S(-7)), reference(n, S(-8));
  std::vector<std::int32_t> tokens(n, 2);
  tokens[20] = tokens[4500] = 0;
  const auto fine = prospect::cpu::mismatched_kl<S>(clean, reference, tokens);
  CHECK(fine.sum == n - 2);
  CHECK(fine.count == n - 2);
  CHECK(fine.nonfinite == 0);
  CHECK(fine.first_nonfinite == -1);
  for (const double bad : not_numbers) {
    CAPTURE(bad);
    std::vector<S> policy = clean, other = reference;
    policy[4999] = other[300] = other[20] = stored<S>(bad);  // row 20 is not scored
    const auto seen = prospect::cpu::mismatched_kl<S>(policy, other, tokens);
    CHECK(seen.sum == n - 4);
    CHECK(seen.count == n - 4);
    CHECK(seen.nonfinite == 2);
    CHECK(seen.first_nonfinite == 300);
    CHECK(prospect::reference_point::from(seen).z == 1);
  }
  // Nothing left: as good as nothing scored.
  const std::vector<S> none(3, stored<S>(infinity));
  const auto seen = prospect::cpu::mismatched_kl<S>(none, none);
  CHECK(seen.count == 0);
  CHECK(seen.nonfinite == 3);
  CHECK(prospect::reference_point::from(seen).z == 0);
  CHECK_FALSE(prospect::reference_point::from(seen).present);
}

TEST_CASE("mismatched rows that are not given are an error, those of a batch of one are not",
          "[nonfinite][errors]") {
  const std::vector<float> one{-3};
  const std::vector<std::int32_t> unscored{0};
  CHECK(testing::refuses("mismatched", [&] { prospect::cpu::mismatched_kl<float>({}, {}); }));
  CHECK(testing::refuses("mismatched", [&] { prospect::cpu::mismatched_kl({}, one); }));
  CHECK(testing::refuses("reference", [&] { prospect::cpu::mismatched_kl(one, {}); }));
  five_completions<float> b;
  const auto seen = prospect::cpu::mismatched_kl(one, one, unscored);
  const auto metrics = b.run(kto{}, prospect::reference_point::from(seen));
  CHECK(same_bits(b.loss, [] {
    five_completions<float> at_zero;
    at_zero.run(kto{}, prospect::zero_point());
    return at_zero.loss;
  }()));
  CHECK_FALSE(metrics.kl.present());
}

// ---- What the coupling is not -------------------------------------------------------------------

TEST_CASE("micro-batches of SimpleKTO are not the whole batch, even with a global count",
          "[cross_class]") {
  const std::vector<double> policy{3, -1, 1, -2, 8, 2, 6, 4}, reference(8, 0.0);
  const std::vector<std::uint8_t> desirable{1, 0, 1, 0, 1, 0, 1, 0};
  const prospect::unpaired_batch<double> whole{
      .policy = policy, .reference = reference, .desirable = desirable};
  const auto slice = [&](std::int64_t first) {
    return prospect::unpaired_batch<double>{.policy = whole.policy.slice(first, 4),
                                            .reference = whole.reference.slice(first, 4),
                                            .desirable = whole.desirable.slice(first, 4)};
  };
  const auto largest_difference = [&](const auto& point) {
    std::vector<double> at_once(8), in_halves(8);
    const prospect::strided_span<double> halves = in_halves;
    evaluate<double>(kto{}, whole, point, {.d_policy = at_once}, normaliser::over(8));
    evaluate<double>(kto{}, slice(0), point, {.d_policy = halves.slice(0, 4)}, normaliser::over(8));
    evaluate<double>(kto{}, slice(4), point, {.d_policy = halves.slice(4, 4)}, normaliser::over(8));
    double largest = 0;
    for (std::size_t i = 0; i < 8; ++i) {
      largest = std::max(largest, std::abs(at_once[i] - in_halves[i]));
    }
    return largest;
  };
  CHECK(largest_difference(prospect::constant_point(0.5)) == 0);
  CHECK(largest_difference(cross_class{}) > 1e-4);
}

namespace {

/// The tutorial variant of HALOs' README: desirable rows against their OWN class's clamped mean,
/// attached.
real same_class_loss(const std::vector<real>& log_ratios, real beta) {
  real mean = 0;
  for (const real r : log_ratios) mean += r / static_cast<real>(log_ratios.size());
  const real z = mean > 0 ? mean : 0;
  real sum = 0;
  for (const real r : log_ratios) sum += oracle::sigmoid(-beta * (r - z));
  return sum;
}

real slope(std::vector<real> log_ratios, std::size_t i, real beta) {
  const real step = 1e-4L, at = log_ratios[i];
  log_ratios[i] = at + step;
  const real above = same_class_loss(log_ratios, beta);
  log_ratios[i] = at - step;
  return (above - same_class_loss(log_ratios, beta)) / (2 * step);
}

}  // namespace

TEST_CASE("a same-class baseline would push some desirable rows down; SimpleKTO pushes none",
          "[cross_class]") {
  testing::random_source random{73};
  CAPTURE(random.seed());
  int flipped = 0;
  for (int trial = 0; trial < 200; ++trial) {
    std::vector<real> ups;
    std::vector<double> policy, d(12);
    const std::vector<double> reference(12, 0.0);
    std::vector<std::uint8_t> desirable;
    for (int i = 0; i < 12; ++i) {
      policy.push_back(random.normal(8));
      desirable.push_back(i % 2 == 0 ? 1 : 0);
      if (i % 2 == 0) ups.push_back(policy.back());
    }
    evaluate<double>(kto{}, {.policy = policy, .reference = reference, .desirable = desirable},
                     cross_class{}, {.d_policy = d});
    for (std::size_t i = 0; i < ups.size(); ++i) {
      CHECK(d[2 * i] < 0);
      CHECK(d[2 * i + 1] > 0);
      // Far beyond the error of the difference quotient.
      flipped += slope(ups, i, 0.1L) > 1e-5L ? 1 : 0;
    }
  }
  CHECK(flipped > 100);
}
