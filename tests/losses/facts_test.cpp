// What is known of each loss in particular: constants at step 0, symmetries, limits, signs and
// minima.

#include <prospect/losses/losses.hpp>

#include <cmath>
#include <numbers>
#include <tuple>

#include "catch.hpp"
#include "closeness.hpp"
#include "losses/at.hpp"
#include "losses/finite_differences.hpp"
#include "losses/textbook.hpp"
#include "random.hpp"

namespace {

using prospect::differentiate;
using testing::at_margin;
using testing::at_ratio;
using testing::near;
using testing::root_of;
using testing::sample;
using testing::sigmoid;
using testing::textbook_answer;
using testing::textbook_pair;
using testing::ulps;

constexpr long double ln2 = std::numbers::ln2_v<long double>;

}  // namespace

// ------------------------------------------------------------------------ where training starts

TEMPLATE_TEST_CASE("step 0, policy equal to reference: the known constants to 1 ulp", "[losses]",
                   float, double) {
  using R = TestType;
  CHECK(ulps(at_margin<R>(prospect::dpo{}, 0).loss, ln2) <= 1);
  CHECK(ulps(at_margin<R>(prospect::dpo{.label_smoothing = 0.2}, 0).loss, ln2) <= 1);
  CHECK(ulps(at_margin<R>(prospect::robust_dpo{}, 0).loss, ln2) <= 1);
  CHECK(at_margin<R>(prospect::hinge{}, 0).loss == R(1));
  CHECK(ulps(at_margin<R>(prospect::ipo{}, 0).loss, 25) <= 1);
  CHECK(ulps(at_margin<R>(prospect::ipo_sum{}, 0).loss, 25) <= 1);
  for (const bool desirable : {true, false}) {
    CHECK(at_ratio<R>(prospect::kto{}, 0, desirable).loss == R(0.5));
    CHECK(at_ratio<R>(prospect::kto_zero{}, 0, desirable).loss == R(0.5));
  }
}

TEMPLATE_TEST_CASE("k3 keeps its digits where its series ends", "[losses]", float, double) {
  using R = TestType;
  for (int i = -2000; i <= 2000; ++i) {
    const R x = R(i) / R(1999.5);  // near +-0.5 from both sides
    const auto k3 = prospect::token_exponentials{}.k3(x);
    CAPTURE(x, k3.value);
    if (i != 0) CHECK(ulps(k3.value, testing::textbook_k3(x)) <= 4);
    CHECK(ulps(k3.slope, -std::expm1(-static_cast<long double>(x))) <= 2);
  }
}

// ------------------------------------------------------------------------------------- symmetries

TEST_CASE("logistic losses: f(-m) - f(m) = m, and slopes add up to -1", "[losses]") {
  testing::random_source random{31};
  CAPTURE(random.seed());
  for (int trial = 0; trial < 200; ++trial) {
    const double m = random.normal(8);
    const prospect::dpo loss{.beta = 1};
    const auto there = at_margin(loss, m), back = at_margin(loss, -m);
    CHECK(near(back.loss - there.loss, m, 1e-13L, 1e-14L));
    CHECK(near(there.d_chosen + back.d_chosen, -1, 1e-14L));
    const auto up = at_ratio(prospect::kto{.beta = 1}, m, true);
    const auto down = at_ratio(prospect::kto{.beta = 1}, m, false);
    CHECK(near(up.loss + down.loss, 1, 1e-15L));
    CHECK(near(up.d_policy, -down.d_policy, 1e-14L));
  }
}

TEST_CASE("cDPO with label smoothing 1/2 does not care which answer was chosen", "[losses]") {
  const prospect::dpo loss{.beta = 0.3, .label_smoothing = 0.5};
  for (const double m : {0.1, 2.0, 17.0, 300.0}) {
    CHECK(near(at_margin(loss, m).loss, at_margin(loss, -m).loss, 1e-14L));
    CHECK(near(at_margin(loss, m).d_chosen, -at_margin(loss, -m).d_chosen, 1e-13L, 1e-16L));
  }
}

TEST_CASE("margin losses give chosen and rejected opposite coefficients", "[losses]") {
  testing::random_source random{32};
  CAPTURE(random.seed());
  const auto losses = std::tuple{prospect::dpo{.label_smoothing = 0.1}, prospect::robust_dpo{},
                                 prospect::hinge{}, prospect::ipo_sum{}};
  for (int trial = 0; trial < 100; ++trial) {
    const textbook_pair p{random.normal(20), random.normal(20)};
    std::apply(
        [&](const auto&... loss) {
          const auto check = [&](const auto& l) {
            const auto value = differentiate(l, sample<double>(p));
            CHECK(value.d_chosen == -value.d_rejected);
          };
          (check(loss), ...);
        },
        losses);
  }
}

// ------------------------------------------------------------------------------------- invariance

TEMPLATE_LIST_TEST_CASE("a reference-based loss sees log-ratios only", "[losses]",
                        testing::every_loss) {
  if constexpr (testing::in_paired_textbook<TestType>) {
    auto p = sample<double>(textbook_pair{1.25, -3.5, 7, 9});
    const auto here = differentiate(TestType{}, p);
    p.chosen.policy -= 500;
    p.rejected.policy -= 20;
    const auto there = differentiate(TestType{}, p);
    CHECK(here.loss == there.loss);
    CHECK(here.d_chosen == there.d_chosen);
  } else if constexpr (testing::in_unpaired_textbook<TestType>) {
    auto a = sample<double>(textbook_answer{1.25, true, 0.5});
    const double here = differentiate(TestType{}, a).loss;
    a.answer.policy -= 500;
    CHECK(differentiate(TestType{}, a).loss == here);
  }
}

TEST_CASE("a constant of the prompt cancels in margins of sums, and only there", "[losses]") {
  const double shift = 2.75;  // beta log Z(x), added to both log-ratios
  const auto moved_by_shift = [&](const auto& loss, double chosen_tokens, double rejected_tokens) {
    const textbook_pair p{1.5, -0.75, chosen_tokens, rejected_tokens};
    const textbook_pair q{1.5 + shift, -0.75 + shift, chosen_tokens, rejected_tokens};
    return differentiate(loss, sample<double>(p)).loss !=
           differentiate(loss, sample<double>(q)).loss;
  };
  CHECK_FALSE(moved_by_shift(prospect::dpo{}, 5, 9));
  CHECK_FALSE(moved_by_shift(prospect::dpo{.label_smoothing = 0.2}, 5, 9));
  CHECK_FALSE(moved_by_shift(prospect::robust_dpo{}, 5, 9));
  CHECK_FALSE(moved_by_shift(prospect::hinge{}, 5, 9));
  CHECK_FALSE(moved_by_shift(prospect::ipo_sum{}, 5, 9));
  CHECK_FALSE(moved_by_shift(prospect::ipo{}, 4, 4));
  // An absolute measure, or means over different lengths, must notice.
  CHECK(moved_by_shift(prospect::ipo{}, 5, 9));
  for (const bool desirable : {true, false}) {
    CHECK(at_ratio(prospect::kto{}, 1.5, desirable).loss !=
          at_ratio(prospect::kto{}, 1.5 + shift, desirable).loss);
    CHECK(at_ratio(prospect::kto_zero{}, 1.5, desirable).loss !=
          at_ratio(prospect::kto_zero{}, 1.5 + shift, desirable).loss);
  }
}

// ------------------------------------------------------------------------------------------ limits

TEST_CASE("far out each loss is its asymptote", "[losses]") {
  for (const double m : {1e3, 1e6, 1e30}) {
    CAPTURE(m);
    const auto right = [&](const auto& loss) { return at_margin<float>(loss, m); };
    const auto left = [&](const auto& loss) { return at_margin<float>(loss, -m); };

    CHECK(right(prospect::dpo{.beta = 1}).loss == 0);
    CHECK(right(prospect::dpo{.beta = 1}).d_chosen == 0);
    CHECK(near(left(prospect::dpo{.beta = 1}).loss, m, 1e-6L));
    CHECK(left(prospect::dpo{.beta = 1}).d_chosen == -1);

    const prospect::dpo smoothed{.beta = 1, .label_smoothing = 0.25};
    CHECK(near(right(smoothed).loss, 0.25L * m, 1e-6L));
    CHECK(right(smoothed).d_chosen == 0.25F);
    CHECK(near(left(smoothed).loss, 0.75L * m, 1e-6L));
    CHECK(left(smoothed).d_chosen == -0.75F);

    const prospect::robust_dpo robust{.beta = 1, .label_smoothing = 0.25};
    CHECK(near(right(robust).loss, -0.5L * m, 1e-6L));
    CHECK(right(robust).d_chosen == -0.5F);
    CHECK(left(robust).d_chosen == -1.5F);

    CHECK(right(prospect::hinge{.beta = 1}).loss == 0);
    CHECK(right(prospect::hinge{.beta = 1}).d_chosen == 0);
    CHECK(near(left(prospect::hinge{.beta = 1}).loss, 1 + m, 1e-6L));
    CHECK(left(prospect::hinge{.beta = 1}).d_chosen == -1);

    for (const bool desirable : {true, false}) {
      const prospect::kto kto{.beta = 1, .desirable_weight = 1.5, .undesirable_weight = 0.75};
      const double good = desirable ? m : -m;
      CHECK(at_ratio<float>(kto, good, desirable).loss == 0);
      CHECK(at_ratio<float>(kto, -good, desirable).loss == (desirable ? 1.5F : 0.75F));
      CHECK(at_ratio<float>(kto, good, desirable).d_policy == 0);
      CHECK(at_ratio<float>(kto, -good, desirable).d_policy == 0);
    }
  }
}

TEMPLATE_LIST_TEST_CASE("margins up to 1e30 leave loss and gradient finite", "[losses]",
                        testing::every_loss) {
  for (const double scaled : {1e2, 1e10, 1e30}) {
    for (const double sign : {-1.0, 1.0}) {
      const double x = sign * scaled / prospect::reward_scale(TestType{});
      CAPTURE(x);
      const auto finite = [](const auto& value) {
        const auto numbers = testing::numbers(value);
        return std::isfinite(numbers[0]) && std::isfinite(numbers[1]) && std::isfinite(numbers[2]);
      };
      if constexpr (testing::in_unpaired_textbook<TestType>) {
        CHECK(finite(at_ratio<float>(TestType{}, x, true)));
        CHECK(finite(at_ratio<float>(TestType{}, x, false)));
      } else if constexpr (testing::in_paired_textbook<TestType>) {
        CHECK(finite(at_margin<double>(TestType{}, x)));
        // IPO's square of 1e30 is no fp32 number: there its mathematics is not finite.
        if constexpr (requires { TestType{}.beta; }) CHECK(finite(at_margin<float>(TestType{}, x)));
      }
    }
  }
}

// -------------------------------------------------------------------------------- signs and minima

TEST_CASE("losses push the chosen answer up and the rejected one down", "[losses]") {
  for (double x = -400; x <= 400; x += 7.3) {
    CAPTURE(x);
    CHECK(at_margin(prospect::dpo{}, x).d_chosen < 0);
    CHECK(at_margin(prospect::dpo{}, x).d_rejected > 0);
    CHECK(at_margin(prospect::robust_dpo{}, x).d_chosen < 0);
    CHECK(at_margin(prospect::hinge{}, x).d_chosen <= 0);
    CHECK(at_ratio(prospect::kto{}, x, true, 1.5).d_policy < 0);
    CHECK(at_ratio(prospect::kto{}, x, false, 1.5).d_policy > 0);
  }
  // These two stop, and turn round.
  CHECK(at_margin(prospect::dpo{.label_smoothing = 0.2}, 20).d_chosen > 0);
  CHECK(at_margin(prospect::ipo_sum{}, 5.1).d_chosen > 0);
}

TEST_CASE("cDPO stops where the odds are those of a clean label", "[losses]") {
  for (const double e : {0.05, 0.2, 0.4}) {
    const prospect::dpo loss{.beta = 0.1, .label_smoothing = e};
    const double h = root_of([&](double x) { return at_margin(loss, x).d_chosen; }, -100, 100);
    CHECK(near(sigmoid(0.1 * h), 1 - e, 1e-12L));
    // Its value there is the binary entropy.
    CHECK(near(at_margin(loss, h).loss, -e * std::log(e) - (1 - e) * std::log(1 - e), 1e-12L));
  }
  const prospect::dpo loss{.beta = 0.1, .label_smoothing = 0.2};
  const double h = root_of([&](double x) { return at_margin(loss, x).d_chosen; }, -100, 100);
  CHECK(near(0.1 * h, 1.386294, 1e-6L));
}

TEST_CASE("label smoothing 0 is DPO, and robust DPO is unbiased", "[losses]") {
  testing::random_source random{33};
  CAPTURE(random.seed());
  for (int trial = 0; trial < 100; ++trial) {
    const double x = random.normal(60), e = random.uniform(0.01, 0.45);
    const auto plain = at_margin(prospect::dpo{}, x);
    CHECK(at_margin(prospect::robust_dpo{.label_smoothing = 0}, x).loss == plain.loss);
    CHECK(at_margin(prospect::robust_dpo{.label_smoothing = 0}, x).d_chosen == plain.d_chosen);
    const prospect::robust_dpo robust{.label_smoothing = e};
    const double kept = at_margin(robust, x).loss, flipped = at_margin(robust, -x).loss;
    CHECK(near((1 - e) * kept + e * flipped, plain.loss, 1e-12L,
               1e-14L * (std::abs(kept) + std::abs(flipped))));
    // And smoothing is the expectation of DPO over flipped labels.
    CHECK(near(at_margin(prospect::dpo{.label_smoothing = e}, x).loss,
               (1 - e) * plain.loss + e * at_margin(prospect::dpo{}, -x).loss, 1e-12L));
  }
}

TEST_CASE("the hinge is flat on its kink and steep one ulp before it", "[losses]") {
  const prospect::hinge loss{.beta = 1};
  CHECK(at_margin<float>(loss, 1).d_chosen == 0);
  CHECK(at_margin<float>(loss, 1).d_rejected == 0);
  CHECK(at_margin<float>(loss, 1).loss == 0);
  CHECK(at_margin<float>(loss, std::nextafter(1.0F, 0.0F)).d_chosen == -1);
  CHECK(at_margin<float>(loss, std::nextafter(1.0F, 2.0F)).d_chosen == 0);
  CHECK(at_margin<float>(prospect::hinge{.beta = 0.25}, std::nextafter(4.0F, 0.0F)).d_chosen ==
        -0.25F);
}

TEST_CASE("IPO is a parabola around 1 / (2 tau), of means over tokens", "[losses]") {
  const prospect::ipo_sum sum{.tau = 0.25};
  const prospect::ipo mean{.tau = 0.25};
  CHECK(at_margin(sum, 2).loss == 0);
  CHECK(at_margin(sum, 2).d_chosen == 0);
  for (const double off : {0.5, 3.0, 100.0}) {
    CHECK(at_margin(sum, 2 + off).loss == off * off);
    CHECK(at_margin(sum, 2 - off).loss == off * off);
    CHECK(at_margin(sum, 2 + off).d_chosen == 2 * off);
  }
  // One token each: the mean is the sum.
  CHECK(at_margin(mean, 5).loss == at_margin(sum, 5).loss);
  // n tokens each, n times the log-ratio: the same loss, 1/n of the coefficient.
  const auto one = differentiate(mean, sample<double>(textbook_pair{3, -1, 1, 1}));
  const auto eight = differentiate(mean, sample<double>(textbook_pair{24, -8, 8, 8}));
  CHECK(eight.loss == one.loss);
  CHECK(eight.d_chosen == one.d_chosen / 8);
  // Each side has its own length.
  const auto uneven = differentiate(mean, sample<double>(textbook_pair{24, -8, 8, 2}));
  CHECK(uneven.loss == (3 + 4 - 2.0) * (3 + 4 - 2.0));
  CHECK(uneven.d_chosen == 2 * 5.0 / 8);
  CHECK(uneven.d_rejected == -2 * 5.0 / 2);
  // Sums and means differ as soon as there are two tokens.
  CHECK(differentiate(sum, sample<double>(textbook_pair{24, -8, 8, 8})).loss != eight.loss);
}

// --------------------------------------------------------------------------------------------- KTO

TEST_CASE("KTO's z shifts the log-ratio, and its slope is the opposite one", "[losses]") {
  testing::random_source random{34};
  CAPTURE(random.seed());
  const prospect::kto loss{.beta = 0.25, .desirable_weight = 1.5, .undesirable_weight = 0.5};
  for (int trial = 0; trial < 200; ++trial) {
    // Multiples of 1/8: differences are exact.
    const double r = static_cast<double>(random.integer(-400, 400)) / 8;
    const double z = static_cast<double>(random.integer(0, 80)) / 8;
    for (const bool desirable : {true, false}) {
      const auto at_z = at_ratio(loss, r, desirable, z);
      CHECK(at_z.loss == at_ratio(loss, r - z, desirable, 0).loss);
      CHECK(at_z.d_policy == at_ratio(loss, r - z, desirable, 0).d_policy);
      CHECK(at_z.d_z == -at_z.d_policy);
    }
  }
}

TEST_CASE("KTO-zero is KTO at z = 0, whatever z is given", "[losses]") {
  for (const double r : {-30.0, -1.0, 0.0, 0.7, 55.0}) {
    for (const bool desirable : {true, false}) {
      const auto zero = at_ratio(prospect::kto_zero{}, r, desirable, 12.5);
      CHECK(zero.loss == at_ratio(prospect::kto{}, r, desirable, 0).loss);
      CHECK(zero.d_policy == at_ratio(prospect::kto{}, r, desirable, 0).d_policy);
      CHECK(zero.d_z == 0);
    }
  }
}

TEST_CASE("class weights scale their own class, linearly", "[losses]") {
  for (const double r : {-30.0, -1.0, 0.0, 0.7, 55.0}) {
    for (const bool desirable : {true, false}) {
      const auto plain = at_ratio(prospect::kto{}, r, desirable, 0.5);
      const auto weighted = at_ratio(
          prospect::kto{.desirable_weight = 4, .undesirable_weight = 0.5}, r, desirable, 0.5);
      const double weight = desirable ? 4 : 0.5;
      CHECK(weighted.loss == weight * plain.loss);
      CHECK(weighted.d_policy == weight * plain.d_policy);
      const auto silent = at_ratio(prospect::kto{.desirable_weight = 0, .undesirable_weight = 0}, r,
                                   desirable, 0.5);
      CHECK(silent.loss == 0);
      CHECK(silent.d_policy == 0);
    }
  }
}
