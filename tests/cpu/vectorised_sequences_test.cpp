// Phase 2 as vector code: several numbers at once are the numbers one by one, a loss that promises
// not to branch gives what it gives without the promise, and neither threads nor the order of the
// pieces nor a row's neighbours change a bit.

#include <prospect/cpu/sequences.hpp>
#include <prospect/cpu/token_losses.hpp>
#include <prospect/losses/losses.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "catch.hpp"
#include "closeness.hpp"
#include "core/float_sweep.hpp"
#include "cpu/cases.hpp"
#include "cpu/rows.hpp"
#include "executors.hpp"
#include "losses/textbook.hpp"
#include "random.hpp"

namespace {

using prospect::completion;
using prospect::differentiate;
using prospect::dual;
using prospect::pair;
using prospect::strided_span;
using prospect::token;
using prospect::unpaired;
using prospect::cpu::evaluate;
using prospect::cpu::detail::lanes;
using prospect::cpu::detail::several;
using testing::all_outputs;
using testing::paired_case;
using testing::random_source;
using testing::same_bits;
using testing::same_metrics;
using testing::ulps;
using testing::unpaired_case;

/// A caller's own, as users write them: it branches on what it is given.
struct branching {
  template <class T>
  T operator()(const prospect::unpaired<T>& e) const {
    if (e.log_ratio() > e.z) return e.desirable ? T(0) : prospect::square(e.log_ratio() - e.z);
    return e.desirable ? prospect::softplus(e.z - e.log_ratio()) : T(0);
  }
};
/// The same as a choice.
struct choosing {
  static constexpr bool branch_free = true;
  template <class T>
  T operator()(const prospect::unpaired<T>& e) const {
    const auto good = e.pick(1, 0), bad = e.pick(0, 1);
    return select(e.log_ratio() > e.z, bad * prospect::square(e.log_ratio() - e.z),
                  good * prospect::softplus(e.z - e.log_ratio()));
  }
};

/// The largest distance in ulps between f of every dense float, lane by lane and one by one.
template <class F>
double worst_difference(const F& f) {
  std::vector<float> x = testing::detail::dense_floats();
  x.resize(x.size() / lanes<float> * lanes<float>);
  double worst = 0;
  for (std::size_t i = 0; i < x.size(); i += lanes<float>) {
    const several<float> together =
        prospect::cpu::detail::load_vector<prospect::cpu::detail::numbers<float>>(&x[i]);
    const auto found = f(dual<several<float>, 1>::variable(together, 0));
    for (std::size_t k = 0; k < lanes<float>; ++k) {
      const auto want = f(dual<float, 1>::variable(x[i + k], 0));
      worst = std::max({worst, ulps(found.value.lane[k], want.value),
                        ulps(found.partial[0].lane[k], want.partial[0])});
    }
  }
  return worst;
}

/// With FMA, several numbers have primitives of their own, within 2 ulp; without, the same as one
/// number, but that the compiler may fuse other multiplications with additions.
constexpr double primitives_apart = prospect::cpu::detail::has_fma ? 2 : 1;
/// With FMA, what a loss may be from the truth: 4 ulp, but of what terms that nearly cancel leave,
/// and of exponentials far out, which are as many ulps off as their exponents are large.
bool alike(float a, float b) {
  if constexpr (prospect::cpu::detail::has_fma) {
    return ulps(a, b) <= 4 || testing::near(a, b, 1e-5L, 1e-7L);
  } else {
    return ulps(a, b) <= 1;
  }
}
bool alike(const std::vector<float>& a, const std::vector<float>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](float x, float y) { return alike(x, y); });
}

}  // namespace

TEST_CASE("several numbers at once are the numbers one by one", "[sequences]") {
  const auto check = [](const char* name, const auto& f) {
    CAPTURE(name);
    CHECK(worst_difference(f) <= primitives_apart);
  };
  check("exp", [](auto x) { return prospect::exp(x); });
  check("expm1", [](auto x) { return prospect::expm1(x); });
  check("log", [](auto x) { return prospect::log(x); });
  check("log1p", [](auto x) { return prospect::log1p(x); });
  check("sigmoid", [](auto x) { return prospect::sigmoid(x); });
  check("softplus", [](auto x) { return prospect::softplus(x); });
  check("log_sigmoid", [](auto x) { return prospect::log_sigmoid(x); });
  check("log1mexp", [](auto x) { return prospect::log1mexp(x); });
  check("relu", [](auto x) { return prospect::relu(x); });
  check("square", [](auto x) { return prospect::square(x); });
  check("clamp", [](auto x) { return prospect::clamp(x, -1, 1.5F); });
  check("select", [](auto x) { return select(x < 0.5F, 2 * x, x / 3); });
}

TEST_CASE("several estimates k3 keep their digits where the series ends", "[sequences]") {
  for (int i = -2000; i <= 2000; ++i) {
    const float x = static_cast<float>(i) / 1999.5F;
    if (i == 0) continue;
    const auto k3 = prospect::cpu::detail::divergences(several<float>(x));
    CAPTURE(x, k3.value.lane[0]);
    CHECK(ulps(k3.value.lane[0], testing::textbook_k3(x)) <= 4);
    CHECK(ulps(k3.slope.lane[0], -std::expm1(-static_cast<long double>(x))) <= 2);
  }
}

TEST_CASE("a loss gives to several examples what it gives to each", "[sequences]") {
  random_source random{81};
  CAPTURE(random.seed());
  constexpr auto n = lanes<float>;
  prospect::for_each_loss([&]<class L>(const L& loss) {
    CAPTURE(std::string{L::name});
    STATIC_REQUIRE(prospect::branch_free_loss<L>);
    for (int round = 0; round < 40; ++round) {
      completion<several<float>> one, other;
      for (auto* side : {&one, &other}) {
        for (int k = 0; k < n; ++k) {
          side->tokens.lane[k] = static_cast<float>(random.integer(1, 40));
          side->policy.lane[k] = static_cast<float>(-1 - std::abs(random.normal(30)));
          side->ratio.lane[k] = static_cast<float>(random.normal(round % 2 == 0 ? 3 : 300));
        }
      }
      const auto check = [&](const auto& together, const auto& sample_of) {
        for (int k = 0; k < n; ++k) {
          const auto want = differentiate(loss, sample_of(k));
          CAPTURE(round, k, want.loss);
          CHECK(alike(together.loss.lane[k], want.loss));
          if constexpr (prospect::paired_loss<L>) {
            CHECK(alike(together.d_chosen.lane[k], want.d_chosen));
            CHECK(alike(together.d_rejected.lane[k], want.d_rejected));
          } else if constexpr (prospect::token_loss<L>) {
            CHECK(alike(together.d_policy.lane[k], want.d_policy));
            CHECK(alike(together.d_sum.lane[k], want.d_sum));
          } else {
            CHECK(alike(together.d_policy.lane[k], want.d_policy));
            CHECK(alike(together.d_z.lane[k], want.d_z));
          }
        }
      };
      const auto lane = [](const completion<several<float>>& c, int k) {
        return completion<float>{c.policy.lane[k], c.ratio.lane[k], c.tokens.lane[k]};
      };
      if constexpr (prospect::paired_loss<L>) {
        check(
            differentiate(loss, pair<several<float>>{.chosen = one, .rejected = other}),
            [&](int k) { return pair<float>{.chosen = lane(one, k), .rejected = lane(other, k)}; });
      } else if constexpr (prospect::token_loss<L>) {
        check(differentiate(loss, token<several<float>>{.policy = one.policy,
                                                        .ratio = one.ratio,
                                                        .reference_ratio = other.ratio,
                                                        .advantage = other.policy + 30,
                                                        .sum = one.ratio,
                                                        .tokens = one.tokens}),
              [&](int k) {
                return token<float>{.policy = one.policy.lane[k],
                                    .ratio = one.ratio.lane[k],
                                    .reference_ratio = other.ratio.lane[k],
                                    .advantage = other.policy.lane[k] + 30,
                                    .sum = one.ratio.lane[k],
                                    .tokens = one.tokens.lane[k]};
              });
      } else {
        const several<float> zero = 0;
        check(differentiate(loss,
                            unpaired<several<float>>{
                                .answer = one, .z = other.policy, .desirable = other.ratio > zero}),
              [&](int k) {
                return unpaired<float>{.answer = lane(one, k),
                                       .z = other.policy.lane[k],
                                       .desirable = other.ratio.lane[k] > 0};
              });
      }
    }
  });
}

TEST_CASE("a loss may branch, or choose", "[sequences]") {
  random_source random{82};
  CAPTURE(random.seed());
  unpaired_case<float> c{random, 150, true};
  evaluate(branching{}, c.in(), {.z = 0.5}, c.out());
  auto other = c;
  evaluate(choosing{}, other.in(), {.z = 0.5}, other.out());
  CHECK(alike(c.loss.elements(), other.loss.elements()));
  CHECK(alike(c.d_policy.elements(), other.d_policy.elements()));
  CHECK(std::ranges::any_of(c.loss.elements(), [](float x) { return x > 0; }));
}

TEMPLATE_TEST_CASE("a row gives the same bits wherever it stands", "[sequences]", float, double,
                   prospect::bfloat16) {
  using S = TestType;
  random_source random{83};
  CAPTURE(random.seed());
  const std::int64_t n = 131;  // two blocks and a part of one
  const prospect::normaliser by = prospect::normaliser::over(100);
  paired_case<S> whole{random, n, true};
  evaluate(prospect::dpo{}, whole.in(), whole.out(), by);
  const auto want = whole.d_chosen.elements();
  for (const std::int64_t first : {std::int64_t{1}, std::int64_t{63}, std::int64_t{90}}) {
    for (const std::int64_t count : {std::int64_t{1}, std::int64_t{17}, n - first}) {
      if (first + count > n) continue;
      CAPTURE(first, count);
      auto in = whole.in();
      for (auto* row :
           {&in.policy_chosen, &in.policy_rejected, &in.reference_chosen, &in.reference_rejected}) {
        *row = row->slice(first, count);
      }
      in.chosen_tokens = in.chosen_tokens.slice(first, count);
      in.rejected_tokens = in.rejected_tokens.slice(first, count);
      std::vector<S> d(static_cast<std::size_t>(count));
      evaluate(prospect::dpo{}, in, {.d_policy_chosen = d}, by);
      for (std::int64_t i = 0; i < count; ++i) {
        CHECK(same_bits(d[static_cast<std::size_t>(i)], want[static_cast<std::size_t>(first + i)]));
      }
    }
  }
}

TEST_CASE("no executor changes a bit", "[sequences]") {
  random_source random{84};
  CAPTURE(random.seed());
  const std::int64_t n = 300'001;  // enough for threads, and no multiple of anything
  paired_case<float> p{random, n, true, false};
  unpaired_case<float> u{random, n, true, false};
  p.policy_chosen[299'000] = p.policy_chosen[70'007] = std::numeric_limits<float>::quiet_NaN();
  u.policy[299'000] = std::numeric_limits<float>::infinity();
  prospect::serial_executor serial;
  const prospect::reference_point z{.z = 0.5};
  const auto paired =
      evaluate(prospect::dpo{}, p.in(), p.out(), prospect::normaliser::mean(), serial);
  const auto given =
      evaluate(prospect::kto{}, u.in(), z, u.out(), prospect::normaliser::mean(), serial);
  const auto pair_bits = all_outputs<float>(p), given_bits = all_outputs<float>(u);
  const auto attached = evaluate(prospect::kto{}, u.in(), prospect::cross_class{}, u.out(),
                                 prospect::normaliser::mean(), serial);
  const auto attached_bits = all_outputs<float>(u);
  const auto kl = prospect::cpu::mismatched_kl<float>(
      p.in().policy_rejected, p.in().reference_rejected, p.in().rejected_tokens, serial);
  CHECK(paired.nonfinite.sum >= 1);
  CHECK((paired.first_nonfinite == 70'007 || paired.first_nonfinite == 299'000));
  testing::with_each_executor([&](const std::string& name, auto& on) {
    CAPTURE(name);
    const auto m = evaluate(prospect::dpo{}, p.in(), p.out(), prospect::normaliser::mean(), on);
    CHECK(m.first_nonfinite == paired.first_nonfinite);
    CHECK(m.nonfinite.sum == paired.nonfinite.sum);
    CHECK(same_bits(m.rewards_margins.sum, paired.rewards_margins.sum));
    CHECK(same_bits(all_outputs<float>(p), pair_bits));
    const auto g = evaluate(prospect::kto{}, u.in(), z, u.out(), prospect::normaliser::mean(), on);
    CHECK(same_bits(g.rewards_rejected.sum, given.rewards_rejected.sum));
    CHECK(same_bits(all_outputs<float>(u), given_bits));
    const auto a = evaluate(prospect::kto{}, u.in(), prospect::cross_class{}, u.out(),
                            prospect::normaliser::mean(), on);
    CHECK(same_metrics(a, attached));
    CHECK(same_bits(all_outputs<float>(u), attached_bits));
    CHECK(
        same_bits(prospect::cpu::mismatched_kl<float>(
                      p.in().policy_rejected, p.in().reference_rejected, p.in().rejected_tokens, on)
                      .sum,
                  kl.sum));
    if constexpr (requires { on.largest; }) CHECK(on.largest > 1);
  });
}

TEST_CASE("short batches stay on the calling thread", "[sequences]") {
  random_source random{85};
  const auto pieces = [&](std::int64_t n) {
    paired_case<float> p{random, n, false, false};
    testing::reversed_executor on;
    evaluate(prospect::dpo{}, p.in(), p.out(), prospect::normaliser::mean(), on);
    return on.largest;
  };
  CHECK(pieces(16'383) == 0);
  CHECK(pieces(16'384) > 1);
}
