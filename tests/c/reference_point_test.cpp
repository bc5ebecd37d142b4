// Reference points, their moving average and class weights through C.
#include <cstdint>
#include <limits>

#include "c/surface.hpp"
#include "catch.hpp"

namespace {

using testing::refused;
using testing::same_bits;

constexpr double not_numbers[] = {std::numeric_limits<double>::quiet_NaN(),
                                  std::numeric_limits<double>::infinity(),
                                  -std::numeric_limits<double>::infinity()};

prospect_observation seen(double sum, double count) { return {sum, count, 0, -1}; }

}  // namespace

TEST_CASE("a point from an observation: clamped, 0 where nothing was seen, never no number") {
  prospect_reference_point point{7, 7};
  prospect_error error{};
  REQUIRE(prospect_reference_point_from(seen(6, 3), &point, nullptr) == PROSPECT_OK);
  CHECK(point.z == 2);
  CHECK(point.raw == 2);
  REQUIRE(prospect_reference_point_from(seen(-6, 3), &point, nullptr) == PROSPECT_OK);
  CHECK(point.z == 0);
  CHECK(point.raw == -2);
  REQUIRE(prospect_reference_point_from(seen(0, 0), &point, nullptr) == PROSPECT_OK);
  CHECK(point.z == 0);
  point = {7, 7};
  for (const double bad : not_numbers) {
    refused(prospect_reference_point_from(seen(bad, 3), &point, &error), PROSPECT_INVALID_ARGUMENT,
            error, "observed.sum must be finite");
    refused(prospect_reference_point_from(seen(3, bad), &point, &error), PROSPECT_INVALID_ARGUMENT,
            error, "observed.count must be finite");
  }
  refused(prospect_reference_point_from(seen(3, -1), &point, &error), PROSPECT_INVALID_ARGUMENT,
          error, "observed.count is negative");
  refused(prospect_reference_point_from(seen(3, 1), nullptr, &error), PROSPECT_INVALID_ARGUMENT,
          error, "point is NULL");
  CHECK(point.z == 7);
}

TEST_CASE("an observation that is no number does not spoil the moving average") {
  prospect_ema ema{0.9, 0, 0};
  REQUIRE(prospect_ema_add(&ema, seen(6, 3), nullptr) == PROSPECT_OK);
  const prospect_ema before = ema;
  prospect_error error{};
  for (const double bad : not_numbers) {
    refused(prospect_ema_add(&ema, seen(bad, 3), &error), PROSPECT_INVALID_ARGUMENT, error,
            "observed");
    refused(prospect_ema_add(&ema, seen(6, bad), &error), PROSPECT_INVALID_ARGUMENT, error,
            "observed");
    CHECK(same_bits(ema, before));
  }
  // A batch without observations says nothing.
  REQUIRE(prospect_ema_add(&ema, seen(0, 0), nullptr) == PROSPECT_OK);
  CHECK(same_bits(ema, before));
  prospect_reference_point point{7, 7};
  REQUIRE(prospect_ema_point(&ema, &point, nullptr) == PROSPECT_OK);
  CHECK_THAT(point.z, WithinRel(2.0, 1e-15));
  REQUIRE(prospect_ema_add(&ema, seen(4, 1), nullptr) == PROSPECT_OK);
  REQUIRE(prospect_ema_point(&ema, &point, nullptr) == PROSPECT_OK);
  CHECK_THAT(point.z, WithinRel((0.9 * 0.1 * 2 + 0.1 * 4) / (0.9 * 0.1 + 0.1), 1e-14));
}

TEST_CASE("an average that came spoilt out of a checkpoint is refused") {
  prospect_error error{};
  prospect_reference_point point{7, 7};
  for (const double bad : not_numbers) {
    prospect_ema ema{0.9, bad, 0.5};
    refused(prospect_ema_add(&ema, seen(1, 1), &error), PROSPECT_INVALID_ARGUMENT, error,
            "ema.average");
    refused(prospect_ema_point(&ema, &point, &error), PROSPECT_INVALID_ARGUMENT, error,
            "ema.average");
    ema = {0.9, 0.5, bad};
    refused(prospect_ema_point(&ema, &point, &error), PROSPECT_INVALID_ARGUMENT, error,
            "ema.weight");
  }
  prospect_ema ema{1, 0, 0};
  refused(prospect_ema_add(&ema, seen(1, 1), &error), PROSPECT_INVALID_ARGUMENT, error, "decay");
  refused(prospect_ema_add(nullptr, seen(1, 1), &error), PROSPECT_INVALID_ARGUMENT, error,
          "ema is NULL");
  refused(prospect_ema_point(nullptr, &point, &error), PROSPECT_INVALID_ARGUMENT, error,
          "ema is NULL");
  CHECK(point.z == 7);
}

TEST_CASE("BCO's running mean through C") {
  prospect_running_mean mean{0, 0};
  prospect_reference_point point{7, 7};
  prospect_error error{};
  const auto seen = [](double sum, double count) {
    return prospect_observation{.sum = sum, .count = count, .nonfinite = 0, .first_nonfinite = -1};
  };
  REQUIRE(prospect_running_mean_add(&mean, seen(-3, 2), &error) == PROSPECT_OK);
  REQUIRE(prospect_running_mean_add(&mean, seen(1, 2), &error) == PROSPECT_OK);
  REQUIRE(prospect_running_mean_point(&mean, &point, &error) == PROSPECT_OK);
  CHECK((point.z == -0.5 && point.raw == -0.5));
  const double bad = std::numeric_limits<double>::quiet_NaN();
  refused(prospect_running_mean_add(&mean, seen(bad, 1), &error), PROSPECT_INVALID_ARGUMENT, error,
          "observed.sum");
  refused(prospect_running_mean_add(&mean, seen(1, -1), &error), PROSPECT_INVALID_ARGUMENT, error,
          "observed.count");
  CHECK((mean.sum == -2 && mean.count == 4));
  mean.sum = 1.7e308;
  refused(prospect_running_mean_add(&mean, seen(1.7e308, 1), &error), PROSPECT_INVALID_ARGUMENT,
          error, "observed");
  mean.count = bad;
  refused(prospect_running_mean_point(&mean, &point, &error), PROSPECT_INVALID_ARGUMENT, error,
          "mean.count");
  refused(prospect_running_mean_add(nullptr, seen(1, 1), &error), PROSPECT_INVALID_ARGUMENT, error,
          "mean is NULL");
  CHECK(point.z == -0.5);
}

TEST_CASE("the mismatched row is the next one, and there is none alone") {
  CHECK(prospect_mismatched_row(0, 3) == 1);
  CHECK(prospect_mismatched_row(2, 3) == 0);
  CHECK(prospect_mismatched_row(0, 1) == -1);
  CHECK(prospect_mismatched_row(3, 3) == -1);
}

TEST_CASE("class weights through C: each bound, and counts that have no quotient") {
  prospect_class_weights weights{};
  const auto propose = [&](double n, double m, prospect_weight_bound bound) {
    return prospect_propose_class_weights(n, m, bound, &weights, nullptr);
  };
  REQUIRE(propose(1, 10, PROSPECT_FOUR_THIRDS) == PROSPECT_OK);
  CHECK_THAT(weights.desirable_low, WithinRel(10.0, 1e-15));
  CHECK(weights.undesirable_low == 1);
  CHECK_THAT(weights.desirable_high, WithinRel(40.0 / 3, 1e-15));
  CHECK(weights.undesirable_high == 1);
  REQUIRE(propose(1, 10, PROSPECT_THREE_HALVES) == PROSPECT_OK);
  CHECK_THAT(weights.desirable_high, WithinRel(15.0, 1e-15));
  REQUIRE(propose(10, 1, PROSPECT_FOUR_THIRDS) == PROSPECT_OK);
  CHECK(weights.desirable_low == 1);
  CHECK_THAT(weights.undesirable_low, WithinRel(10.0, 1e-15));
  CHECK(weights.desirable_high == 1);
  CHECK_THAT(weights.undesirable_high, WithinRel(7.5, 1e-15));

  const prospect_class_weights before = weights;
  CHECK(propose(1e300, 1e-300, PROSPECT_THREE_HALVES) == PROSPECT_INVALID_ARGUMENT);
  CHECK(propose(1e-300, 1e300, PROSPECT_THREE_HALVES) == PROSPECT_INVALID_ARGUMENT);
  CHECK(propose(0, 1, PROSPECT_THREE_HALVES) == PROSPECT_INVALID_ARGUMENT);
  CHECK(propose(1, 1, 2) == PROSPECT_UNSUPPORTED);
  CHECK(prospect_propose_class_weights(1, 1, 0, nullptr, nullptr) == PROSPECT_INVALID_ARGUMENT);
  CHECK(same_bits(weights, before));
}
