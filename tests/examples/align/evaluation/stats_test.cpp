// AUC and standard errors, against their definitions.
#include "evaluation/stats.hpp"

#include <cmath>
#include <vector>

#include "catch.hpp"
#include "random_source.hpp"

using namespace align;

namespace {

double auc_by_definition(const std::vector<double>& positive, const std::vector<double>& negative) {
  double wins = 0;
  for (const double p : positive) {
    for (const double n : negative) wins += p > n ? 1 : p == n ? 0.5 : 0;
  }
  return wins / static_cast<double>(positive.size() * negative.size());
}

}  // namespace

TEST_CASE("AUC counts pairs, and ties count half") {
  CHECK(auc(std::vector{1.0, 2.0}, std::vector{0.0, -1.0}) == 1);
  CHECK(auc(std::vector{0.0, -1.0}, std::vector{1.0, 2.0}) == 0);
  CHECK(auc(std::vector{0.0, 0.0, 0.0}, std::vector{0.0, 0.0}) == 0.5);
  CHECK(auc(std::vector{1.0, 2.0}, std::vector{1.0}) == 0.75);

  random_source random(7);
  std::vector<double> positive, negative;
  for (int i = 0; i < 200; ++i) {
    positive.push_back(static_cast<double>(random.below(20)));
    negative.push_back(static_cast<double>(random.below(17)));
  }
  CHECK_THAT(auc(positive, negative), WithinAbs(auc_by_definition(positive, negative), 1e-14));
}

TEST_CASE("AUC is unknown without one class or with a score that is not a number") {
  CHECK(std::isnan(auc(std::vector<double>{}, std::vector{1.0})));
  CHECK(std::isnan(auc(std::vector{1.0}, std::vector<double>{})));
  CHECK(std::isnan(auc(std::vector{1.0, std::nan("")}, std::vector{1.0})));
}

TEST_CASE("the sampling error of an AUC is what repeated samples show") {
  // Exponential scores have the very distribution that Hanley and McNeil assume.
  random_source random(11);
  constexpr int repetitions = 400, size = 60;
  std::vector<double> aucs;
  for (int r = 0; r < repetitions; ++r) {
    std::vector<double> positive, negative;
    for (int i = 0; i < size; ++i) {
      positive.push_back(-2 * std::log1p(-random.uniform()));
      negative.push_back(-std::log1p(-random.uniform()));
    }
    aucs.push_back(auc(positive, negative));
  }
  const estimate seen = summarise(aucs);
  const double deviation = seen.standard_error * std::sqrt(repetitions);
  CHECK_THAT(seen.mean, WithinAbs(2.0 / 3, 0.01));
  CHECK_THAT(auc_standard_error(2.0 / 3, size, size), WithinRel(deviation, 0.15));
}

TEST_CASE("mean and standard error leave out what was not measured") {
  const estimate e = summarise(std::vector{1.0, 2.0, std::nan(""), 6.0});
  CHECK_THAT(e.mean, WithinAbs(3, 1e-15));
  CHECK_THAT(e.standard_error, WithinAbs(std::sqrt(7.0 / 3), 1e-15));  // variance 7 over 3 values
  CHECK(std::isnan(summarise(std::vector{1.0}).standard_error));
  CHECK(std::isnan(summarise(std::vector<double>{}).mean));
}
