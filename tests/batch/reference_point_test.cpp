// Where KTO's z comes from: rotation, pooling over micro-batches and ranks, averages, constants;
// and that what was observed is kept beside what is used.

#include <prospect/reference_point.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <set>
#include <vector>

#include "catch.hpp"
#include "closeness.hpp"
#include "random.hpp"
#include "refusals.hpp"

using prospect::mismatched_row;
using prospect::reference_point;
using prospect::sum_count;
using testing::near;

TEST_CASE("the rotation pairs every prompt with another row's completion", "[reference_point]") {
  CHECK(mismatched_row(0, 1) == -1);  // alone: its own completion would be a matched one
  CHECK(mismatched_row(0, 0) == -1);
  CHECK(mismatched_row(-1, 3) == -1);
  CHECK(mismatched_row(3, 3) == -1);
  CHECK(mismatched_row(0, 2) == 1);
  CHECK(mismatched_row(1, 2) == 0);
  for (const std::int64_t rows : {2, 3, 4, 7, 32, 33}) {
    std::set<std::int64_t> used;
    for (std::int64_t i = 0; i < rows; ++i) {
      const std::int64_t other = mismatched_row(i, rows);
      CAPTURE(rows, i, other);
      CHECK(other != i);  // a reversal would leave the middle of an odd batch matched
      CHECK(other == (i + 1) % rows);
      used.insert(other);
    }
    CHECK(used.size() == static_cast<std::size_t>(rows));
  }
}

TEST_CASE("an estimate is clamped at zero and its raw value kept", "[reference_point]") {
  const auto below = reference_point::clamped(-4.36);
  CHECK(below.z == 0);
  CHECK(below.raw == -4.36);
  const auto above = reference_point::clamped(1.5);
  CHECK(above.z == 1.5);
  CHECK(above.raw == 1.5);
  CHECK(reference_point::from({.sum = 6, .count = 4}).z == 1.5);
  CHECK(reference_point::from({.sum = -6, .count = 4}).raw == -1.5);
  CHECK(reference_point::from({.sum = -6, .count = 4}).z == 0);
  // No observation: the reference point of the policy against itself.
  CHECK(reference_point::from({}).z == 0);
  CHECK(reference_point::from({}).raw == 0);
  CHECK(std::isnan(reference_point::clamped(std::nan("")).z));  // never hidden by the clamp
}

TEST_CASE("constants are used as given", "[reference_point]") {
  CHECK(prospect::zero_point().z == 0);
  CHECK(prospect::zero_point().raw == 0);
  CHECK(prospect::constant_point(-2.5).z == -2.5);
  CHECK(prospect::constant_point(-2.5).raw == -2.5);
  CHECK(testing::refuses("z", [] { prospect::constant_point(std::nan("")); }));
  CHECK(testing::refuses("z", [] { prospect::constant_point(INFINITY); }));
}

TEST_CASE("pooling over uneven micro-batches is the mean of the concatenated batch",
          "[reference_point]") {
  testing::random_source random{41};
  CAPTURE(random.seed());
  prospect::pooled_point pooled;
  double sum = 0, count = 0, mean_of_means = 0;
  const std::vector<std::int64_t> sizes{5, 1, 0, 12, 3};
  for (const std::int64_t size : sizes) {
    sum_count batch;
    for (const double x : random.normals(size, 3)) {
      batch.add(x + 1);
      sum += x + 1;
      count += 1;
    }
    mean_of_means += batch.mean() / static_cast<double>(sizes.size());
    pooled.add(batch);
  }
  CHECK(near(pooled.point().raw, sum / count, 0, 1e-13L));
  CHECK(pooled.observed().count == count);
  CHECK_FALSE(near(mean_of_means, sum / count, 0, 1e-6L));

  // Ranks: what an all-reduce does to `observed`.
  pooled.observed() += sum_count{.sum = 100, .count = 10};
  CHECK(near(pooled.point().raw, (sum + 100) / (count + 10), 0, 1e-13L));

  pooled.reset();
  CHECK(pooled.point().z == 0);
  CHECK(pooled.observed().count == 0);
}

TEST_CASE("pooling clamps once, at the end", "[reference_point]") {
  prospect::pooled_point pooled;
  pooled.add({.sum = -8, .count = 2});
  pooled.add({.sum = 4, .count = 2});
  CHECK(pooled.point().raw == -1);  // clamping each batch first would give +1
  CHECK(pooled.point().z == 0);
}

TEST_CASE("the moving average is bias-corrected and clamped at the end", "[reference_point]") {
  const double decay = 0.9;
  prospect::ema_point average{decay};
  CHECK(average.point().z == 0);

  testing::random_source random{42};
  CAPTURE(random.seed());
  std::vector<double> means;
  for (int step = 0; step < 20; ++step) {
    const double mean = random.normal(2);
    means.push_back(mean);
    average.add({.sum = 3 * mean, .count = 3});
    // By definition: sum of (1-d) d^age x_age over the sum of the same weights.
    double weighted = 0, weight = 0;
    for (std::size_t i = 0; i < means.size(); ++i) {
      const double w = std::pow(decay, static_cast<double>(means.size() - 1 - i));
      weighted += w * means[i];
      weight += w;
    }
    CHECK(near(average.point().raw, weighted / weight, 1e-12L, 1e-13L));
    CHECK(average.point().z == std::max(0.0, average.point().raw));
  }
  // A batch with nothing in it is no observation of 0.
  const double before = average.point().raw;
  average.add({});
  CHECK(average.point().raw == before);
}

TEST_CASE("the first batch of a moving average counts in full", "[reference_point]") {
  prospect::ema_point average{0.99};
  average.add({.sum = 7, .count = 2});
  CHECK(near(average.point().z, 3.5, 1e-14L));
  prospect::ema_point memoryless{0};
  memoryless.add({.sum = 7, .count = 2});
  memoryless.add({.sum = -4, .count = 2});
  CHECK(memoryless.point().raw == -2);
}

TEST_CASE("a moving average survives a checkpoint", "[reference_point]") {
  prospect::ema_point original{0.8}, resumed{0.8};
  original.add({.sum = 3, .count = 2});
  original.add({.sum = 5, .count = 1});
  resumed.restore(original.state());
  CHECK(resumed.point().raw == original.point().raw);
  original.add({.sum = 1, .count = 4});
  resumed.add({.sum = 1, .count = 4});
  CHECK(resumed.point().raw == original.point().raw);
}

TEST_CASE("decay outside [0, 1) is refused by name", "[reference_point]") {
  for (const double decay : {-0.1, 1.0, 1.5, std::nan("")}) {
    CAPTURE(decay);
    CHECK(testing::refuses("decay", [&] { prospect::ema_point{decay}; }));
  }
}

TEST_CASE("what was never observed is not present", "[reference_point]") {
  CHECK_FALSE(reference_point::from({}).present);
  CHECK(reference_point::from({.sum = 0, .count = 1}).present);
  CHECK(prospect::constant_point(0).present);
  CHECK(reference_point{.z = 1}.present);
  prospect::pooled_point pooled;
  prospect::ema_point average{0.9};
  CHECK_FALSE(pooled.point().present);
  CHECK_FALSE(average.point().present);
  CHECK(average.add({}));
  CHECK_FALSE(average.point().present);
  pooled.add({.sum = -1, .count = 2});
  average.add({.sum = -1, .count = 2});
  CHECK(pooled.point().present);
  CHECK(average.point().present);
}

TEST_CASE("no average is poisoned: what is not finite is left out, and said to be",
          "[reference_point]") {
  const double infinity = std::numeric_limits<double>::infinity(), nan = std::nan("");
  prospect::pooled_point pooled;
  prospect::ema_point average{0.5};
  CHECK(pooled.add({.sum = 3, .count = 2}));
  CHECK(average.add({.sum = 3, .count = 2}));
  const std::vector<sum_count> bad{{.sum = nan, .count = 2},       {.sum = infinity, .count = 2},
                                   {.sum = -infinity, .count = 2}, {.sum = 1, .count = nan},
                                   {.sum = 1, .count = infinity},  {.sum = nan, .count = 0},
                                   {.sum = 1e300, .count = 1e-300}};
  for (const sum_count& seen : bad) {
    CAPTURE(seen.sum, seen.count);
    CHECK_FALSE(pooled.add(seen));
    CHECK_FALSE(average.add(seen));
    CHECK(pooled.point().raw == 1.5);
    CHECK(average.point().raw == 1.5);
    CHECK(testing::refuses("state", [&] { average.restore(seen); }));
    CHECK(average.point().raw == 1.5);
  }
  CHECK(testing::refuses("state", [&] { average.restore({.sum = 1, .count = -0.5}); }));
  // Nor do finite sums add up to an infinite one.
  CHECK(pooled.add({.sum = 1e308, .count = 1}));
  CHECK_FALSE(pooled.add({.sum = 1e308, .count = 1}));
  CHECK(std::isfinite(pooled.point().raw));
}

TEST_CASE("an observation is a sum with a count, and what was left out beside it",
          "[reference_point]") {
  prospect::observation seen;
  seen.add(3);
  seen.nonfinite = 2;
  prospect::pooled_point pooled;
  CHECK(pooled.add(seen));
  CHECK(pooled.observed().count == 1);
  CHECK(reference_point::from(seen).z == 3);
}

TEST_CASE("BCO's running mean is that of every example so far, and not clamped",
          "[reference_point]") {
  testing::random_source random{43};
  CAPTURE(random.seed());
  prospect::running_point running, resumed;
  CHECK_FALSE(running.point().present);
  double sum = 0, count = 0;
  for (const std::int64_t size : {3, 0, 1, 9, 2}) {
    sum_count batch;
    for (const double x : random.normals(size, 3)) {
      batch.add(x - 4);
      sum += x - 4;
      count += 1;
    }
    CHECK(running.add(batch));
    CHECK(running.point().present);
    CHECK(near(running.point().z, sum / count, 1e-13L));
    CHECK(running.point().z < 0);
    CHECK(running.point().raw == running.point().z);
    resumed.restore(running.state());
  }
  CHECK(resumed.point().z == running.point().z);
  CHECK_FALSE(running.add({.sum = std::nan(""), .count = 1}));
  CHECK(resumed.point().z == running.point().z);
  CHECK(testing::refuses("running_point", [&] { resumed.restore({.sum = 1, .count = -1}); }));
  CHECK(testing::refuses("running_point", [&] { resumed.restore({.sum = INFINITY, .count = 1}); }));
}
