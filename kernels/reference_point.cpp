// The C API on KTO's reference point and class weights, as far as no batch is involved.
#include "sequences.hpp"

#include <prospect/class_weights.hpp>

namespace pk = prospect::kernels;

namespace {

prospect_reference_point to_c(const prospect::reference_point& point) {
  return {.z = point.z, .raw = point.raw};
}

prospect::ema_point from_c(const prospect_ema& ema) {
  pk::finite("ema.average", ema.average);
  pk::finite("ema.weight", ema.weight);
  prospect::ema_point point{ema.decay};
  point.restore({.sum = ema.average, .count = ema.weight});
  return point;
}

prospect::running_point from_c(const prospect_running_mean& mean) {
  pk::finite("mean.sum", mean.sum);
  pk::finite("mean.count", mean.count);
  prospect::running_point point;
  point.restore({.sum = mean.sum, .count = mean.count});
  return point;
}

}  // namespace

int64_t prospect_mismatched_row(int64_t i, int64_t rows) {
  return prospect::mismatched_row(i, rows);
}

prospect_status prospect_reference_point_from(prospect_observation observed,
                                              prospect_reference_point* point,
                                              prospect_error* error) {
  return pk::guard(error, [&] {
    pk::require(point, "point");
    *point = to_c(prospect::reference_point::from(pk::finite_observation(observed)));
  });
}

prospect_status prospect_ema_add(prospect_ema* ema, prospect_observation observed,
                                 prospect_error* error) {
  return pk::guard(error, [&] {
    prospect::ema_point point = from_c(pk::require(ema, "ema"));
    point.add(pk::finite_observation(observed));
    const prospect::sum_count state = point.state();
    ema->average = state.sum;
    ema->weight = state.count;
  });
}

prospect_status prospect_ema_point(const prospect_ema* ema, prospect_reference_point* point,
                                   prospect_error* error) {
  return pk::guard(error, [&] {
    pk::require(point, "point");
    *point = to_c(from_c(pk::require(ema, "ema")).point());
  });
}

prospect_status prospect_running_mean_add(prospect_running_mean* mean,
                                          prospect_observation observed, prospect_error* error) {
  return pk::guard(error, [&] {
    prospect::running_point point = from_c(pk::require(mean, "mean"));
    if (!point.add(pk::finite_observation(observed))) {
      pk::fail(PROSPECT_INVALID_ARGUMENT, "observed is more than there are numbers for");
    }
    const prospect::sum_count state = point.state();
    mean->sum = state.sum;
    mean->count = state.count;
  });
}

prospect_status prospect_running_mean_point(const prospect_running_mean* mean,
                                            prospect_reference_point* point,
                                            prospect_error* error) {
  return pk::guard(error, [&] {
    pk::require(point, "point");
    *point = to_c(from_c(pk::require(mean, "mean")).point());
  });
}

prospect_status prospect_propose_class_weights(double n_desirable, double n_undesirable,
                                               prospect_weight_bound bound,
                                               prospect_class_weights* weights,
                                               prospect_error* error) {
  return pk::guard(error, [&] {
    pk::require(weights, "weights");
    if (bound != PROSPECT_FOUR_THIRDS && bound != PROSPECT_THREE_HALVES) {
      pk::fail(PROSPECT_UNSUPPORTED, "bound is unknown");
    }
    const prospect::weight_proposal proposal = prospect::propose_class_weights(
        n_desirable, n_undesirable,
        bound == PROSPECT_FOUR_THIRDS ? prospect::weight_bound::four_thirds
                                      : prospect::weight_bound::three_halves);
    *weights = {.desirable_low = proposal.low.desirable,
                .undesirable_low = proposal.low.undesirable,
                .desirable_high = proposal.high.desirable,
                .undesirable_high = proposal.high.undesirable};
  });
}
