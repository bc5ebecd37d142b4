// Targets of completions: what a loss makes of them against its textbook form, beside weights and
// attached points, and who is refused them.

#include <prospect/cpu/sequences.hpp>
#include <prospect/losses/unpaired/a2po.hpp>
#include <prospect/losses/unpaired/kto.hpp>

#include <cmath>
#include <cstdint>
#include <vector>

#include "catch.hpp"
#include "closeness.hpp"
#include "random.hpp"
#include "refusals.hpp"

namespace {

using prospect::a2po;
using testing::near;

template <class R>
struct target_case {
  std::vector<R> policy, reference, target, weight, loss, d;
  std::vector<std::uint8_t> desirable;
  std::vector<std::int32_t> tokens;

  explicit target_case(std::size_t n) : loss(n), d(n), tokens(n, 2) {
    testing::random_source random{79};
    for (std::size_t i = 0; i < n; ++i) {
      policy.push_back(static_cast<R>(random.normal(20)));
      reference.push_back(static_cast<R>(random.normal(20)));
      target.push_back(static_cast<R>(random.normal(1)));
      weight.push_back(static_cast<R>(random.uniform(0, 2)));
      desirable.push_back(random.chance(0.5) ? 1 : 0);
    }
  }
  prospect::unpaired_batch<> in() const {
    return {.policy = policy,
            .reference = reference,
            .desirable = desirable,
            .tokens = tokens,
            .target = target};
  }
  prospect::unpaired_outputs<> out() { return {.loss = loss, .d_policy = d}; }
};

template <class R>
void check_targets(bool weighted) {
  target_case<R> c{300};
  c.tokens[7] = 0;
  c.target[7] = static_cast<R>(NAN);  // not read
  prospect::unpaired_batch<> in = c.in();
  if (weighted) in.weight = c.weight;
  const a2po loss{.beta2 = 0.05};
  const auto metrics = prospect::cpu::evaluate(loss, in, prospect::zero_point(), c.out(),
                                               prospect::normaliser::sum());
  long double total = 0;
  for (std::size_t i = 0; i < c.policy.size(); ++i) {
    if (i == 7) continue;
    const long double u = static_cast<long double>(c.policy[i]) - c.reference[i];
    const long double off = loss.beta2 * u - c.target[i], w = weighted ? c.weight[i] : R(1);
    const long double rounding = 8 * std::numeric_limits<R>::epsilon();
    CAPTURE(i, weighted);
    CHECK(near(c.loss[i], w * off * off, rounding, 8 * rounding * std::abs(off)));
    CHECK(near(c.d[i], w * 2 * loss.beta2 * off, rounding, rounding));
    total += w * off * off;
  }
  CHECK((c.loss[7] == 0 && c.d[7] == 0));
  CHECK(near(metrics.total, total, 1e-5L));
  CHECK(metrics.loss.count == 299);
  CHECK(metrics.nonfinite.sum == 0);
  CHECK_FALSE(metrics.kl.present());  // A2PO reads no point
}

/// Reads everything that an unpaired loss can.
struct regress_on_all {
  template <class T>
  T operator()(const prospect::unpaired<T>& e) const {
    return prospect::square(0.1 * (e.log_ratio() - e.z) - e.target * e.sign());
  }
};

}  // namespace

TEST_CASE("A2PO regresses on the targets of its batch", "[targets]") {
  for (const bool weighted : {false, true}) {
    check_targets<float>(weighted);
    check_targets<double>(weighted);
  }
}

TEST_CASE("the gradient through attached points knows the targets", "[targets]") {
  target_case<double> c{9};
  const auto total = [&] {
    return prospect::cpu::evaluate(regress_on_all{}, c.in(), prospect::cross_class{}, c.out())
        .total;
  };
  total();
  const std::vector<double> d = c.d;
  for (std::size_t i = 0; i < 9; ++i) {
    const double here = c.policy[i], step = 1e-5;
    c.policy[i] = here + step;
    const double above = total();
    c.policy[i] = here - step;
    CAPTURE(i);
    CHECK(near(d[i], (above - total()) / (2 * step), 1e-6L, 1e-8L));
    c.policy[i] = here;
  }
}

TEST_CASE("a target that is no number stays with its completion", "[targets]") {
  target_case<float> fine{40}, c{40};
  c.target[11] = static_cast<float>(NAN);
  const auto evaluate = [](target_case<float>& of) {
    return prospect::cpu::evaluate(a2po{}, of.in(), prospect::zero_point(), of.out());
  };
  evaluate(fine);
  const auto metrics = evaluate(c);
  CHECK(metrics.nonfinite.sum == 1);
  CHECK(metrics.first_nonfinite == 11);
  for (std::size_t i = 0; i < 40; ++i) CHECK((c.d[i] == fine.d[i] || i == 11));
  CHECK(std::isnan(c.d[11]));
}

TEST_CASE("targets are given where they are read, and only there", "[targets]") {
  target_case<double> c{3};
  const auto refused = [&](const auto& loss, const prospect::unpaired_batch<>& in,
                           const char* words) {
    CHECK(testing::refuses(
        words, [&] { prospect::cpu::evaluate(loss, in, prospect::zero_point(), c.out()); }));
  };
  refused(prospect::kto{}, c.in(), "target is given");
  prospect::unpaired_batch<> in = c.in();
  in.target = {};
  refused(a2po{}, in, "target is missing");
  const std::vector<double> few(2);
  in.target = few;
  refused(a2po{}, in, "target");
  refused(a2po{.beta2 = 0}, c.in(), "beta2");
}

TEST_CASE("what BCO's running mean is fed with: a batch's own rows, of both classes", "[targets]") {
  target_case<double> c{5};
  c.tokens[1] = 0;
  c.policy[3] = NAN;
  const prospect::observation seen = prospect::cpu::observed_log_ratios(c.in());
  double sum = 0;
  for (const std::size_t i : {0U, 2U, 4U}) sum += c.policy[i] - c.reference[i];
  CHECK(near(seen.sum, sum, 1e-14L));
  CHECK(seen.count == 3);
  CHECK((seen.nonfinite == 1 && seen.first_nonfinite == 3));
  CHECK(prospect::cpu::observed_log_ratios(prospect::unpaired_batch<>{}).count == 0);
}
