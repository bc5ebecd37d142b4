// Sums with counts, the normaliser, and the names metrics are logged by.

#include <prospect/batch.hpp>

#include <cmath>
#include <limits>
#include <string_view>
#include <vector>

#include "catch.hpp"

using prospect::normaliser;
using prospect::sum_count;

TEST_CASE("sums and counts add up across ranks; means of means do not", "[batch]") {
  // Two ranks with three rows and one.
  sum_count first, second;
  for (const double x : {1.0, 2.0, 6.0}) first.add(x);
  second.add(11.0);
  sum_count all = first;
  all += second;
  CHECK(all.sum == 20);
  CHECK(all.count == 4);
  CHECK(all.mean() == 5);
  CHECK((first.mean() + second.mean()) / 2 == 7);
}

TEST_CASE("what was never counted is absent, not zero", "[batch]") {
  CHECK_FALSE(sum_count{}.present());
  CHECK(sum_count{}.mean() == 0);
  sum_count one;
  one.add(0.0);
  CHECK(one.present());
}

TEST_CASE("the normaliser's factor", "[batch]") {
  CHECK(normaliser::sum().factor(7) == 1);
  CHECK(normaliser::sum().factor(0) == 1);
  CHECK(normaliser::mean().factor(8) == 0.125);
  CHECK(normaliser::mean().factor(0) == 0);  // nothing counted: no division by zero
  CHECK(normaliser::over(16).factor(3) == 0.0625);
  CHECK(normaliser::over(0.5).factor(3) == 2);  // a loss scale
}

TEST_CASE("a normaliser over no positive, finite count is not valid", "[batch]") {
  CHECK(normaliser::sum().valid());
  CHECK(normaliser::mean().valid());
  CHECK(normaliser::over(1e6).valid());
  // A global count of 0 must not turn into the local mean behind the caller's back.
  CHECK_FALSE(normaliser::over(0).valid());
  CHECK_FALSE(normaliser::over(-0.0).valid());
  CHECK_FALSE(normaliser::over(-4).valid());
  CHECK_FALSE(normaliser::over(1e-320).valid());  // its inverse is infinite
  CHECK_FALSE(normaliser::over(std::nan("")).valid());
  CHECK_FALSE(normaliser::over(std::numeric_limits<double>::infinity()).valid());
}

TEST_CASE("metrics carry their Hugging Face names and their own values", "[batch]") {
  const auto value_of = [](const auto& metrics, std::string_view name) {
    for (const auto& metric : metrics.named()) {
      if (metric.name == name) return metric.value.sum;
    }
    return std::nan("");
  };
  prospect::paired_metrics paired;
  paired.loss.sum = 1;
  paired.rewards_chosen.sum = 2;
  paired.rewards_rejected.sum = 3;
  paired.rewards_margins.sum = 4;
  paired.rewards_accuracies.sum = 5;
  paired.logps_chosen.sum = 6;
  paired.logps_rejected.sum = 7;
  CHECK(value_of(paired, "loss") == 1);
  CHECK(value_of(paired, "rewards/chosen") == 2);
  CHECK(value_of(paired, "rewards/rejected") == 3);
  CHECK(value_of(paired, "rewards/margins") == 4);
  CHECK(value_of(paired, "rewards/accuracies") == 5);
  CHECK(value_of(paired, "logps/chosen") == 6);
  CHECK(value_of(paired, "logps/rejected") == 7);

  prospect::unpaired_metrics unpaired;
  unpaired.loss.sum = 1;
  unpaired.rewards_chosen.sum = 2;
  unpaired.rewards_rejected.sum = 3;
  unpaired.logps_chosen.sum = 4;
  unpaired.logps_rejected.sum = 5;
  unpaired.kl.sum = 6;
  unpaired.kl_unclamped.sum = 7;
  CHECK(value_of(unpaired, "loss") == 1);
  CHECK(value_of(unpaired, "rewards/chosen") == 2);
  CHECK(value_of(unpaired, "rewards/rejected") == 3);
  CHECK(value_of(unpaired, "logps/chosen") == 4);
  CHECK(value_of(unpaired, "logps/rejected") == 5);
  CHECK(value_of(unpaired, "kl") == 6);
  CHECK(value_of(unpaired, "kl_unclamped") == 7);
}
