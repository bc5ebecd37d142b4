// Sums with counts, the normaliser, and the names metrics are logged by.

#include <prospect/batch.hpp>

#include <array>
#include <cmath>
#include <cstddef>
#include <limits>
#include <string_view>
#include <utility>

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

TEST_CASE("only the mean depends on what a call counts", "[batch]") {
  CHECK(normaliser::mean().counts());
  CHECK_FALSE(normaliser::sum().counts());
  CHECK_FALSE(normaliser::over(3).counts());
  CHECK(normaliser::over(4).factor(0) == 0.25);
}

TEST_CASE("a normaliser over no positive, finite count is not valid", "[batch]") {
  CHECK(normaliser::sum().valid());
  CHECK(normaliser::mean().valid());
  CHECK(normaliser::over(1e6).valid());
  CHECK(normaliser::over(1e-300).valid());
  CHECK(normaliser::over(1e300).valid());
  CHECK_FALSE(normaliser::over(0.999e-300).valid());
  CHECK_FALSE(normaliser::over(1.001e300).valid());
  // A global count of 0 must not turn into the local mean behind the caller's back.
  CHECK_FALSE(normaliser::over(0).valid());
  CHECK_FALSE(normaliser::over(-0.0).valid());
  CHECK_FALSE(normaliser::over(-4).valid());
  CHECK_FALSE(normaliser::over(1e-320).valid());  // its inverse is infinite
  CHECK_FALSE(normaliser::over(std::nan("")).valid());
  CHECK_FALSE(normaliser::over(std::numeric_limits<double>::infinity()).valid());
}

namespace {

/// Each named metric is a member of its own, sum and count alike, in this order.
template <class Metrics, std::size_t N>
void check_names(const std::array<std::pair<std::string_view, sum_count Metrics::*>, N>& expected) {
  Metrics metrics;
  double number = 0;
  for (const auto& [name, member] : expected) {
    number += 1;
    metrics.*member = {.sum = number, .count = 100 + number};
  }
  const auto named = metrics.named();
  REQUIRE(named.size() == N);
  for (std::size_t i = 0; i < N; ++i) {
    CAPTURE(i, named[i].name);
    CHECK(named[i].name == expected[i].first);
    CHECK(named[i].value.sum == static_cast<double>(i + 1));
    CHECK(named[i].value.count == static_cast<double>(i + 101));
  }
}

}  // namespace

TEST_CASE("metrics carry their Hugging Face names and their own values", "[batch]") {
  using paired = prospect::paired_metrics;
  check_names<paired, 8>({{{"loss", &paired::loss},
                           {"rewards/chosen", &paired::rewards_chosen},
                           {"rewards/rejected", &paired::rewards_rejected},
                           {"rewards/margins", &paired::rewards_margins},
                           {"rewards/accuracies", &paired::rewards_accuracies},
                           {"logps/chosen", &paired::logps_chosen},
                           {"logps/rejected", &paired::logps_rejected},
                           {"nonfinite", &paired::nonfinite}}});
  using unpaired = prospect::unpaired_metrics;
  check_names<unpaired, 8>({{{"loss", &unpaired::loss},
                             {"rewards/chosen", &unpaired::rewards_chosen},
                             {"rewards/rejected", &unpaired::rewards_rejected},
                             {"logps/chosen", &unpaired::logps_chosen},
                             {"logps/rejected", &unpaired::logps_rejected},
                             {"kl", &unpaired::kl},
                             {"kl_unclamped", &unpaired::kl_unclamped},
                             {"nonfinite", &unpaired::nonfinite}}});
}
