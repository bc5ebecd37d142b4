// Sums over parts on the host: one order, every member of every kind of metrics, and what makes no
// sense is refused.
#include <prospect/cpu/ranks.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "catch.hpp"
#include "cpu/rows.hpp"
#include "random.hpp"
#include "refusals.hpp"

namespace {

using prospect::matrix_view;
using prospect::strided_span;
using prospect::sum_count;
using prospect::cpu::sum_over_ranks;
using testing::refuses;
using testing::same_bits;

sum_count any_sum(testing::random_source& random) {
  return {.sum = random.normal(1e3), .count = static_cast<double>(random.integer(0, 99))};
}
template <class Metrics, class... Sums>
Metrics any_metrics(testing::random_source& random, Sums... sums) {
  Metrics m;
  ((m.*sums = any_sum(random)), ...);
  m.total = random.normal(1);
  return m;
}
prospect::paired_metrics any_of(testing::random_source& random, prospect::paired_metrics*) {
  using m = prospect::paired_metrics;
  return any_metrics<m>(random, &m::loss, &m::rewards_chosen, &m::rewards_rejected,
                        &m::rewards_margins, &m::rewards_accuracies, &m::logps_chosen,
                        &m::logps_rejected, &m::nonfinite);
}
prospect::unpaired_metrics any_of(testing::random_source& random, prospect::unpaired_metrics*) {
  using m = prospect::unpaired_metrics;
  return any_metrics<m>(random, &m::loss, &m::rewards_chosen, &m::rewards_rejected,
                        &m::logps_chosen, &m::logps_rejected, &m::kl, &m::kl_unclamped,
                        &m::nonfinite);
}
prospect::token_metrics any_of(testing::random_source& random, prospect::token_metrics*) {
  using m = prospect::token_metrics;
  return any_metrics<m>(random, &m::loss, &m::advantages, &m::ratio, &m::clip_ratio, &m::kl,
                        &m::entropy, &m::tokens, &m::nonfinite);
}
prospect::value_metrics any_of(testing::random_source& random, prospect::value_metrics*) {
  using m = prospect::value_metrics;
  return any_metrics<m>(random, &m::loss, &m::nonfinite);
}

}  // namespace

TEST_CASE("parts are added up from the first to the last", "[ranks]") {
  // Digits are lost on the way, in this order and in no other.
  const std::vector<double> x{1, 1e16, 1, -1e16, 0.25};
  const double in_order = (((1 + 1e16) + 1) - 1e16) + 0.25;
  CHECK(sum_over_ranks<double>(strided_span<const double>{x}) == in_order);
  CHECK(sum_over_ranks<double>(strided_span<const double>{x.data() + 4, 5, -1}) ==
        (((0.25 - 1e16) + 1) + 1e16) + 1);
  // Rows, with a pitch; into a strided row, and into one of their own.
  std::vector<double> rows(5 * 4, -7.0), sums(6, -3.0);
  for (std::size_t i = 0; i < 5; ++i) {
    rows[4 * i] = x[i];
    rows[4 * i + 1] = std::ldexp(1.0, static_cast<int>(i));
  }
  sum_over_ranks<double>({rows.data(), 5, 2, 4}, {sums.data(), 2, 3});
  CHECK(sums == std::vector<double>{in_order, -3, -3, 31, -3, -3});
  sum_over_ranks<double>({rows.data(), 5, 2, 4}, {rows.data() + 8, 2});
  CHECK(rows[8] == in_order);
  CHECK(rows[9] == 31);
  CHECK(rows[10] == -7);
  // Sums and counts.
  const std::vector<sum_count> seen{{1e16, 2}, {1, 3}, {-1e16, 0}};
  CHECK(same_bits(sum_over_ranks<sum_count>(strided_span<const sum_count>{seen}),
                  sum_count{(1e16 + 1) - 1e16, 5}));
}

TEST_CASE("fp32 is added up in fp64 and rounded once", "[ranks]") {
  const std::vector<float> parts{1, 0x1p-24F, 0x1p-24F, 0x1p-24F};
  float sum = -1;
  sum_over_ranks<float>({parts.data(), 4, 1}, strided_span<float>{&sum, 1});
  CHECK(sum == 1 + 0x1p-22F);  // not 1, as in fp32; nor 1 + 3 2^-24, which is none
  CHECK(sum_over_ranks<float>(strided_span<const float>{parts}) == sum);
}

TEST_CASE("one part is its own sum, and what is no number stays none", "[ranks]") {
  const std::vector<double> one{-0.0, std::numeric_limits<double>::quiet_NaN()};
  std::vector<double> sums(2);
  sum_over_ranks<double>({one.data(), 1, 2}, sums);
  CHECK(std::signbit(sums[0]));
  CHECK(std::isnan(sums[1]));
}

TEMPLATE_TEST_CASE("every sum, count and total of metrics is added up", "[ranks]",
                   prospect::paired_metrics, prospect::unpaired_metrics, prospect::token_metrics,
                   prospect::value_metrics) {
  testing::random_source random{4301};
  CAPTURE(random.seed());
  std::vector<TestType> parts;
  for (int r = 0; r < 4; ++r) parts.push_back(any_of(random, static_cast<TestType*>(nullptr)));
  parts[2].first_nonfinite = 5;
  parts[3].first_nonfinite = 1;
  const TestType all = sum_over_ranks<TestType>(strided_span<const TestType>{parts});
  for (std::size_t k = 0; k < all.named().size(); ++k) {
    CAPTURE(all.named()[k].name);
    sum_count want = parts[0].named()[k].value;
    for (std::size_t r = 1; r < 4; ++r) {
      want.sum += parts[r].named()[k].value.sum;
      want.count += parts[r].named()[k].value.count;
    }
    CHECK(same_bits(all.named()[k].value, want));
    CHECK(want.sum != 0);
  }
  CHECK(all.total == ((parts[0].total + parts[1].total) + parts[2].total) + parts[3].total);
  CHECK(all.first_nonfinite == 5);
}

TEST_CASE("observations add up with what they left out", "[ranks]") {
  std::vector<prospect::observation> parts(3);
  parts[0].sum = 0.1;
  parts[0].count = 2;
  parts[1].nonfinite = 3;
  parts[1].first_nonfinite = 4;
  parts[2].sum = 0.7;
  parts[2].count = 1;
  parts[2].nonfinite = 1;
  parts[2].first_nonfinite = 0;
  const auto all =
      sum_over_ranks<prospect::observation>(strided_span<const prospect::observation>{parts});
  CHECK(all.sum == (0.1 + 0.0) + 0.7);
  CHECK(all.count == 3);
  CHECK(all.nonfinite == 4);
  CHECK(all.first_nonfinite == 4);
}

TEST_CASE("sums over parts that make no sense are refused", "[ranks][errors]") {
  std::vector<double> x(8), sums(4);
  const auto call = [&](matrix_view<const double> ranks, strided_span<double> to) {
    return [=] { sum_over_ranks<double>(ranks, to); };
  };
  call({x.data(), 2, 4}, sums)();
  call({x.data(), 2, 0}, {})();
  CHECK(refuses("ranks are none", call({x.data(), 0, 4}, sums)));
  CHECK(refuses("ranks has no data", call({nullptr, 2, 4}, sums)));
  CHECK(refuses("pitch", call({x.data(), 2, 4, 3}, sums)));
  CHECK(refuses("sums", call({x.data(), 2, 3}, sums)));
  CHECK(refuses("stride 0", call({x.data(), 2, 4}, {sums.data(), 4, 0})));
  CHECK(refuses("ranks are none", [] { sum_over_ranks<double>(strided_span<const double>{}); }));
  CHECK(refuses("ranks has no data", [] {
    sum_over_ranks<double>(strided_span<const double>{nullptr, 2});
  }));
}
