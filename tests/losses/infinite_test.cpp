// Built-in losses at infinite log-ratios: the limits, where there are any, and no 0 times infinity
// from an option that is 0.

#include <prospect/losses/losses.hpp>

#include <cmath>

#include "catch.hpp"
#include "special_numbers.hpp"

namespace {

using testing::infinity;

template <class R>
prospect::paired_value<R> at(const auto& loss, double chosen, double rejected) {
  return differentiate(loss, prospect::pair<R>{.chosen = {.ratio = static_cast<R>(chosen)},
                                               .rejected = {.ratio = static_cast<R>(rejected)}});
}
template <class R>
prospect::unpaired_value<R> of_class(const auto& loss, double ratio, bool desirable) {
  return differentiate(loss, prospect::unpaired<R>{.answer = {.ratio = static_cast<R>(ratio)},
                                                   .desirable = desirable});
}

/// A switched-off term beside one that is not: as mixtures of losses are written.
struct mixture {
  double weight = 0;
  template <class T>
  PROSPECT_HD constexpr T operator()(const prospect::pair<T>& p) const {
    return prospect::relu(-p.log_ratio_margin()) +
           prospect::term(weight, prospect::square(p.log_ratio_margin()));
  }
};

}  // namespace

TEMPLATE_TEST_CASE("a margin without bound has the loss and the slope of its limit", "[losses]",
                   float, double) {
  using R = TestType;
  const auto check = [](const auto& loss, R beta) {
    for (const auto& v : {at<R>(loss, infinity, -1), at<R>(loss, -1, -infinity),
                          at<R>(loss, infinity, -infinity)}) {
      CHECK(v.loss == 0);
      CHECK(v.d_chosen == 0);
      CHECK(v.d_rejected == 0);
    }
    for (const auto& v : {at<R>(loss, -infinity, -1), at<R>(loss, -1, infinity),
                          at<R>(loss, -infinity, infinity)}) {
      CHECK(v.loss == static_cast<R>(infinity));
      CHECK(v.d_chosen == -beta);
      CHECK(v.d_rejected == beta);
    }
    CHECK(std::isnan(at<R>(loss, infinity, infinity).loss));  // no difference, no limit
    CHECK(std::isnan(at<R>(loss, std::nan(""), 0).loss));
  };
  check(prospect::dpo{.beta = 0.5}, R(0.5));
  check(prospect::robust_dpo{.beta = 0.5}, R(0.5));
  check(prospect::hinge{.beta = 0.5}, R(0.5));
  check(mixture{}, R(1));

  // With smoothing both ends are infinite, with the slopes of their asymptotes.
  const prospect::dpo smoothed{.beta = 0.5, .label_smoothing = 0.25};
  CHECK(at<R>(smoothed, infinity, 0).loss == static_cast<R>(infinity));
  CHECK(at<R>(smoothed, infinity, 0).d_chosen == R(0.125));
  CHECK(std::isinf(at<R>(mixture{.weight = 1}, infinity, 0).loss));

  for (const auto& loss : {prospect::ipo_sum{}, prospect::ipo_sum{.tau = 3}}) {
    CHECK(at<R>(loss, infinity, 0).loss == static_cast<R>(infinity));
    CHECK(at<R>(loss, -infinity, 0).d_chosen == static_cast<R>(-infinity));
  }
}

TEMPLATE_TEST_CASE("an impossible or certain completion saturates", "[losses]", float, double) {
  using R = TestType;
  for (const double weight : {0.0, 1.0}) {
    CAPTURE(weight);
    const prospect::kto loss{.desirable_weight = weight, .undesirable_weight = weight};
    for (const bool desirable : {false, true}) {
      const auto good = of_class<R>(loss, desirable ? infinity : -infinity, desirable);
      const auto bad = of_class<R>(loss, desirable ? -infinity : infinity, desirable);
      CHECK(good.loss == 0);
      CHECK(bad.loss == static_cast<R>(weight));
      for (const auto& v : {good, bad}) {
        CHECK(v.d_policy == 0);
        CHECK(v.d_z == 0);
      }
    }
  }
}
