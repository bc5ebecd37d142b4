// Hyper-parameters: their defaults, which of them are refused and by what name; and losses of a
// user's own.

#include <prospect/losses/losses.hpp>

#include <cmath>
#include <string>

#include "catch.hpp"
#include "losses/finite_differences.hpp"
#include "losses/textbook.hpp"
#include "random.hpp"

using testing::sample;
using testing::textbook_answer;
using testing::textbook_pair;

TEST_CASE("the reward scale is beta, or IPO's tau, or 1", "[losses]") {
  struct scaleless {};
  CHECK(prospect::reward_scale(prospect::dpo{.beta = 0.3}) == 0.3);
  CHECK(prospect::reward_scale(prospect::kto{.beta = 0.7}) == 0.7);
  CHECK(prospect::reward_scale(prospect::ipo{.tau = 0.2}) == 0.2);
  CHECK(prospect::reward_scale(scaleless{}) == 1);
}

TEST_CASE("defaults are those of TRL", "[losses]") {
  CHECK(prospect::dpo{}.beta == 0.1);
  CHECK(prospect::dpo{}.label_smoothing == 0);
  CHECK(prospect::hinge{}.beta == 0.1);
  CHECK(prospect::ipo{}.tau == 0.1);
  CHECK(prospect::ipo_sum{}.tau == 0.1);
  CHECK(prospect::kto{}.beta == 0.1);
  CHECK(prospect::kto{}.desirable_weight == 1);
  CHECK(prospect::kto{}.undesirable_weight == 1);
  CHECK(prospect::kto_zero{}.beta == 0.1);
}

TEST_CASE("parameters that make no sense are named", "[losses]") {
  const auto complains_of = [](const auto& loss, const std::string& parameter) {
    const char* why = prospect::problem(loss);
    return why != nullptr && std::string{why}.find(parameter) != std::string::npos;
  };
  CHECK(complains_of(prospect::dpo{.beta = 0}, "beta"));
  CHECK(complains_of(prospect::dpo{.label_smoothing = 1}, "label_smoothing"));
  CHECK(complains_of(prospect::robust_dpo{.beta = 0}, "beta"));
  CHECK(complains_of(prospect::robust_dpo{.label_smoothing = 0.5}, "label_smoothing"));
  CHECK(complains_of(prospect::hinge{.beta = 0}, "beta"));
  CHECK(complains_of(prospect::ipo{.tau = 0}, "tau"));
  CHECK(complains_of(prospect::ipo_sum{.tau = 0}, "tau"));
  CHECK(complains_of(prospect::kto{.beta = 0}, "beta"));
  CHECK(complains_of(prospect::kto{.desirable_weight = -0.5}, "desirable_weight"));
  CHECK(complains_of(prospect::kto{.undesirable_weight = -0.5}, "undesirable_weight"));
  CHECK(complains_of(prospect::kto_zero{.beta = 0}, "beta"));
  CHECK(prospect::problem(prospect::robust_dpo{.label_smoothing = 0}) == nullptr);
  CHECK(prospect::problem(prospect::kto{.desirable_weight = 0}) == nullptr);
}

TEST_CASE("each interval of a parameter ends where it says", "[losses]") {
  const auto allows = [](const auto& loss) { return prospect::problem(loss) == nullptr; };
  const double most = 1e30, least = 1e-30;
  const auto above = [](double x) { return std::nextafter(x, 2 * x); };
  const auto below = [](double x) { return std::nextafter(x, -1.0); };
  const auto positive = [&](const auto& with) {
    CHECK(allows(with(least)));
    CHECK(allows(with(most)));
    CHECK_FALSE(allows(with(below(least))));
    CHECK_FALSE(allows(with(above(most))));
    CHECK_FALSE(allows(with(-1.0)));
    CHECK_FALSE(allows(with(std::nan(""))));
  };
  positive([](double x) { return prospect::dpo{.beta = x}; });
  positive([](double x) { return prospect::robust_dpo{.beta = x}; });
  positive([](double x) { return prospect::hinge{.beta = x}; });
  positive([](double x) { return prospect::ipo{.tau = x}; });
  positive([](double x) { return prospect::ipo_sum{.tau = x}; });
  positive([](double x) { return prospect::kto{.beta = x}; });
  positive([](double x) { return prospect::kto_zero{.beta = x}; });

  const auto weight = [&](const auto& with) {
    CHECK(allows(with(0.0)));
    CHECK(allows(with(most)));
    CHECK_FALSE(allows(with(below(0.0))));
    CHECK_FALSE(allows(with(above(most))));
    CHECK_FALSE(allows(with(std::nan(""))));
  };
  weight([](double x) { return prospect::kto{.desirable_weight = x}; });
  weight([](double x) { return prospect::kto{.undesirable_weight = x}; });
  weight([](double x) { return prospect::kto_zero{.desirable_weight = x}; });
  weight([](double x) { return prospect::kto_zero{.undesirable_weight = x}; });

  const auto share = [&](double end, const auto& with) {
    CHECK(allows(with(0.0)));
    CHECK(allows(with(below(end))));
    CHECK_FALSE(allows(with(end)));
    CHECK_FALSE(allows(with(below(0.0))));
    CHECK_FALSE(allows(with(std::nan(""))));
  };
  share(1, [](double x) { return prospect::dpo{.label_smoothing = x}; });
  share(0.5, [](double x) { return prospect::robust_dpo{.label_smoothing = x}; });
}

namespace {

// Exponential preference loss with a margin, as a user would write it.
struct exponential {
  double beta = 0.5;
  template <class T>
  T operator()(const prospect::pair<T>& p) const {
    return prospect::exp(-beta * p.log_ratio_margin()) +
           0.01 * prospect::square(p.chosen.mean_policy());
  }
};

// Only the rejected thumbs count.
struct only_down {
  template <class T>
  T operator()(const prospect::unpaired<T>& e) const {
    return e.desirable ? T(0) : prospect::softplus(0.25 * (e.log_ratio() - e.z));
  }
};

struct not_copyable_to_a_kernel {
  std::string name;
  template <class T>
  T operator()(const prospect::pair<T>& p) const {
    return p.log_ratio_margin();
  }
};

}  // namespace

TEST_CASE("a loss of the user's own: ten lines, and the gradient comes by itself", "[losses]") {
  STATIC_REQUIRE(prospect::paired_loss<exponential>);
  STATIC_REQUIRE_FALSE(prospect::unpaired_loss<exponential>);
  STATIC_REQUIRE(prospect::unpaired_loss<only_down, double>);
  STATIC_REQUIRE_FALSE(prospect::paired_loss<only_down>);
  STATIC_REQUIRE_FALSE(prospect::paired_loss<not_copyable_to_a_kernel>);
  STATIC_REQUIRE_FALSE(prospect::paired_loss<int>);
  CHECK(prospect::problem(exponential{}) == nullptr);

  testing::random_source random{35};
  CAPTURE(random.seed());
  for (int trial = 0; trial < 50; ++trial) {
    const textbook_pair p{random.normal(3), random.normal(3), 5, 7};
    CHECK(testing::gradient_matches_differences(exponential{}, sample<double>(p)));
    for (const bool desirable : {true, false}) {
      const textbook_answer a{random.normal(9), desirable, random.normal(1)};
      CHECK(testing::gradient_matches_differences(only_down{}, sample<double>(a)));
    }
  }
}
