// Advantages, pairs and optimal values against their definitions in long double, in groups of one
// size and of many, with rewards that are equal, huge or no numbers.

#include <prospect/cpu/rewards.hpp>

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "catch.hpp"
#include "closeness.hpp"
#include "random.hpp"
#include "refusals.hpp"
#include "special_numbers.hpp"

namespace {

namespace cpu = prospect::cpu;
using prospect::const_any_row;
using prospect::sequence_layout;
using testing::infinity;
using testing::near;

constexpr double no_reward = std::numeric_limits<double>::quiet_NaN();

using rewards = std::vector<double>;

struct mean_and_deviation {
  long double mean = 0, unbiased = 0, population = 0;
};

mean_and_deviation moments_of(const rewards& numbers) {
  const auto n = static_cast<long double>(numbers.size());
  mean_and_deviation all;
  for (const double x : numbers) all.mean += x / n;
  long double squares = 0;
  for (const double x : numbers) squares += (x - all.mean) * (x - all.mean);
  all.population = std::sqrt(squares / n);
  all.unbiased = n > 1 ? std::sqrt(squares / (n - 1)) : 0;
  return all;
}

rewards part(const rewards& all, std::int64_t first, std::int64_t end) {
  return {all.begin() + first, all.begin() + end};
}

void check_near(const rewards& got, const std::vector<long double>& want) {
  REQUIRE(got.size() == want.size());
  for (std::size_t i = 0; i < got.size(); ++i) {
    CAPTURE(i, got[i], want[i]);
    CHECK(near(got[i], want[i], 1e-12L, 1e-13L));
  }
}

const std::vector<std::int64_t> reward_offsets{0, 1, 4, 4, 12, 14};

}  // namespace

TEST_CASE("advantages are what their papers say", "[rewards]") {
  testing::random_source random{71};
  CAPTURE(random.seed());
  const rewards r = random.normals(14, 3);
  const rewards format = random.normals(14, 0.1);
  const sequence_layout groups = sequence_layout::packed(reward_offsets);
  const mean_and_deviation batch = moments_of(r);
  std::vector<long double> by_group, by_batch, by_none, halos, rloo, summed;
  for (std::size_t g = 0; g + 1 < reward_offsets.size(); ++g) {
    const rewards here = part(r, reward_offsets[g], reward_offsets[g + 1]);
    const rewards forms = part(format, reward_offsets[g], reward_offsets[g + 1]);
    const mean_and_deviation own = moments_of(here), of_form = moments_of(forms);
    const auto n = static_cast<long double>(here.size());
    for (std::size_t i = 0; i < here.size(); ++i) {
      const long double d = here[i] - own.mean;
      by_group.push_back(d / (own.unbiased + 1e-4));
      by_batch.push_back(d / (batch.unbiased + 1e-4));
      by_none.push_back(d);
      halos.push_back(d / (own.population + 1e-2));
      rloo.push_back(n > 1 ? here[i] - (own.mean * n - here[i]) / (n - 1) : 0);
      summed.push_back(d / (own.unbiased + 1e-4) * 0.75 +
                       (forms[i] - of_form.mean) / (of_form.unbiased + 1e-4) * -2);
    }
  }
  rewards got(r.size());
  using cpu::scale_rewards;
  const auto grpo = [&](const cpu::grpo_scaling& scaling) {
    CHECK(cpu::grpo_advantages(r, groups, got, scaling).count == 0);
    return got;
  };
  check_near(grpo({}), by_group);
  check_near(grpo({.by = scale_rewards::batch}), by_batch);
  check_near(grpo(cpu::grpo_scaling::unscaled()), by_none);
  check_near(grpo(cpu::grpo_scaling::halos()), halos);
  CHECK(cpu::rloo_advantages(r, groups, got).count == 0);
  check_near(got, rloo);

  const const_any_row components[] = {r, format};
  const double weights[] = {0.75, -2};
  CHECK(cpu::gdpo_advantages(components, groups, got, weights).count == 0);
  const mean_and_deviation sums = moments_of(rewards(summed.begin(), summed.end()));
  std::vector<long double> gdpo;
  for (const long double s : summed) gdpo.push_back((s - sums.mean) / (sums.unbiased + 1e-4));
  check_near(got, gdpo);

  // Groups of one size, a row of another type with a stride, and the last rewards in no group.
  std::vector<float> narrow(28, -7);
  for (std::size_t i = 0; i < r.size(); ++i) narrow[2 * i] = static_cast<float>(r[i]);
  const prospect::strided_span<const float> strided{narrow.data(), 14, 2};
  rewards same(14), packed(14);
  cpu::grpo_advantages(strided, sequence_layout::padded(2, 7), same);
  const std::vector<std::int64_t> halves{0, 7, 14}, begins{0}, ends{7};
  cpu::grpo_advantages(strided, sequence_layout::packed(halves), packed);
  CHECK(same == packed);
  cpu::grpo_advantages(strided, sequence_layout::ranges(begins, ends), packed);
  CHECK(part(packed, 0, 7) == part(same, 0, 7));
  CHECK(part(packed, 7, 14) == rewards(7, 0));
}

TEST_CASE("rewards that say nothing give advantages of exactly 0", "[rewards]") {
  rewards got(6, 5);
  const sequence_layout groups = sequence_layout::padded(2, 3);
  for (const double epsilon : {1e-4, 0.0}) {
    for (const double r : {0.1, -1e300, 5e-324}) {
      CAPTURE(epsilon, r);
      const rewards equal(6, r);
      const const_any_row components[] = {equal, equal};
      cpu::grpo_advantages(equal, groups, got, {.epsilon = epsilon});
      CHECK(got == rewards(6, 0));
      cpu::rloo_advantages(equal, groups, got);
      CHECK(got == rewards(6, 0));
      cpu::gdpo_advantages(components, groups, got, {}, epsilon);
      CHECK(got == rewards(6, 0));
      // Alone.
      cpu::grpo_advantages(equal, sequence_layout::padded(6, 1), got, {.epsilon = epsilon});
      CHECK(got == rewards(6, 0));
      cpu::rloo_advantages(equal, sequence_layout::padded(6, 1), got);
      CHECK(got == rewards(6, 0));
    }
  }
  CHECK(cpu::grpo_advantages(rewards{}, sequence_layout::padded(0, 8), prospect::any_row{}).count ==
        0);
  // Far out, and far apart from what they differ by.
  cpu::grpo_advantages(rewards{-4e307, 0, 4e307, 1e9, 1e9 + 1, 1e9 + 2}, groups, got);
  check_near(got, {-1, 0, 1, -1 / 1.0001L, 0, 1 / 1.0001L});
}

TEST_CASE("a reward that is no number stays with its completion", "[rewards]") {
  const sequence_layout groups = sequence_layout::padded(2, 3);
  const rewards without{1, 2, 4, 6, 8};
  const std::vector<std::int64_t> fewer{0, 2, 5};
  for (const double bad : {no_reward, infinity, -infinity}) {
    const rewards with{1, bad, 2, 4, 6, 8};
    rewards want(5), got(6);
    const auto agrees = [&](const cpu::unrewarded& seen) {
      CHECK(seen.count == 1);
      CHECK(seen.first == 1);
      CHECK(std::isnan(got[1]));
      got.erase(got.begin() + 1);
      CHECK(got == want);
      got.resize(6);
    };
    for (const auto by :
         {cpu::scale_rewards::group, cpu::scale_rewards::batch, cpu::scale_rewards::none}) {
      cpu::grpo_advantages(without, sequence_layout::packed(fewer), want, {.by = by});
      agrees(cpu::grpo_advantages(with, groups, got, {.by = by}));
    }
    cpu::rloo_advantages(without, sequence_layout::packed(fewer), want);
    agrees(cpu::rloo_advantages(with, groups, got));
    // Its other component takes part in nothing either.
    const const_any_row fine[] = {without, without};
    const rewards other{1, 100, 2, 4, 6, 8};
    const const_any_row spoilt[] = {other, with};
    cpu::gdpo_advantages(fine, sequence_layout::packed(fewer), want);
    agrees(cpu::gdpo_advantages(spoilt, groups, got));
  }
}

TEST_CASE("the best and the worst of a group become a pair", "[rewards]") {
  const rewards r{2,
                  1,
                  1,
                  3,
                  5,
                  5,
                  /**/ no_reward,
                  4,
                  -infinity, /**/
                  7,
                  9,
                  9,
                  7,
                  8,
                  /**/ no_reward,
                  3};
  const std::vector<std::int32_t> ends{2, 4, 6, 9, 14, 16}, begins{0, 2, 4, 6, 9, 14};
  std::vector<std::int32_t> chosen(6, -1), rejected(6, -1);
  const auto pairs = [&](const sequence_layout& groups) {
    return cpu::best_and_worst(r, groups, prospect::strided_span<std::int32_t>{chosen},
                               prospect::strided_span<std::int32_t>{rejected});
  };
  // Two that tie: the first is chosen. One finite reward is no pair.
  CHECK(pairs(sequence_layout::ranges(begins, ends)) == 4);
  CHECK(chosen == std::vector<std::int32_t>{0, 3, 4, 10, -1, -1});
  CHECK(rejected == std::vector<std::int32_t>{1, 2, 5, 12, -1, -1});
  std::vector<std::int64_t> few(3);
  CHECK(testing::refuses("chosen", [&] {
    cpu::best_and_worst(r, sequence_layout::padded(4, 4), prospect::strided_span<std::int64_t>{few},
                        prospect::strided_span<std::int64_t>{few});
  }));
}

TEST_CASE("the optimal value is a soft maximum", "[rewards]") {
  testing::random_source random{72};
  CAPTURE(random.seed());
  for (const double beta1 : {0.5, 1e-3, 1e4}) {
    const rewards r = random.normals(9, 2);
    long double sum = 0, highest = -infinity;
    for (const double x : r) highest = std::max(highest, static_cast<long double>(x));
    for (const double x : r) sum += std::exp((x - highest) / beta1);
    CAPTURE(beta1);
    CHECK(near(cpu::optimal_value(r, beta1), highest + beta1 * std::log(sum / 9), 1e-12L, 1e-14L));
  }
  CHECK(cpu::optimal_value(rewards(7, 0.1)) == 0.1);
  CHECK(near(cpu::optimal_value(rewards{-1e300, 1e300}), 1e300, 1e-12L));
  CHECK(near(cpu::optimal_value(rewards{0, 1}, 1e30), 0.5L, 1e-12L));  // the mean
  CHECK(testing::refuses("rewards", [] { cpu::optimal_value(rewards{}); }));
  CHECK(testing::refuses("rewards is not finite at 1", [] {
    cpu::optimal_value(rewards{0, no_reward});
  }));
  CHECK(testing::refuses("beta1", [] { cpu::optimal_value(rewards{0}, 0); }));
}

TEST_CASE("calls on rewards that make no sense are refused by name", "[rewards]") {
  const rewards r(6);
  rewards got(6), few(5);
  const sequence_layout groups = sequence_layout::padded(2, 3);
  const std::vector<std::int64_t> wrong{0, 4, 3, 6};
  CHECK(testing::refuses("groups",
                         [&] { cpu::grpo_advantages(r, sequence_layout::padded(2, 4), got); }));
  CHECK(testing::refuses("groups",
                         [&] { cpu::rloo_advantages(r, sequence_layout::packed(wrong), got); }));
  CHECK(testing::refuses("advantages", [&] { cpu::grpo_advantages(r, groups, few); }));
  CHECK(testing::refuses("advantages", [&] {
    cpu::rloo_advantages(r, groups, prospect::any_row{got.data(), 6, 0});
  }));
  CHECK(testing::refuses("epsilon",
                         [&] { cpu::grpo_advantages(r, groups, got, {.epsilon = -1e-4}); }));
  const const_any_row uneven[] = {r, few};
  CHECK(testing::refuses("components", [&] { cpu::gdpo_advantages(uneven, groups, got); }));
  const const_any_row one[] = {r};
  const double two[] = {1, 1}, bad[] = {no_reward};
  CHECK(testing::refuses("weights", [&] { cpu::gdpo_advantages(one, groups, got, two); }));
  CHECK(testing::refuses("weights", [&] { cpu::gdpo_advantages(one, groups, got, bad); }));
}
