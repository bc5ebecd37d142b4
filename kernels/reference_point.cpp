// The C API on KTO's reference point and class weights.
#include "boundary.hpp"

#include <prospect/class_weights.hpp>
#include <prospect/cpu/sequences.hpp>

#include <cmath>

namespace pk = prospect::kernels;

namespace {

prospect_reference_point to_c(const prospect::reference_point& point) {
  return {.z = point.z, .raw = point.raw};
}

prospect::sum_count from_c(const prospect_sum_count& observed) {
  return {.sum = observed.sum, .count = observed.count};
}

prospect::ema_point from_c(const prospect_ema& ema) {
  prospect::ema_point point{ema.decay};
  point.restore({.sum = ema.average, .count = ema.weight});
  return point;
}

}  // namespace

int64_t prospect_mismatched_row(int64_t i, int64_t rows) {
  return prospect::mismatched_row(i, rows);
}

prospect_status prospect_mismatched_kl_cpu(prospect_dtype dtype, prospect_const_row policy,
                                           prospect_const_row reference, prospect_const_row tokens,
                                           prospect_sum_count* observed, prospect_error* error) {
  return pk::guard(error, [&] {
    pk::require(observed, "observed");
    pk::with_storage(dtype, [&]<class S>(S) {
      const prospect::sum_count seen = prospect::cpu::mismatched_kl<S>(
          pk::in<S>("policy", policy), pk::in<S>("reference", reference),
          pk::in<std::int32_t>("tokens", tokens));
      *observed = {.sum = seen.sum, .count = seen.count};
    });
  });
}

prospect_reference_point prospect_reference_point_from(prospect_sum_count observed) {
  return to_c(prospect::reference_point::from(from_c(observed)));
}

prospect_status prospect_ema_add(prospect_ema* ema, prospect_sum_count observed,
                                 prospect_error* error) {
  return pk::guard(error, [&] {
    prospect::ema_point point = from_c(pk::require(ema, "ema"));
    if (!std::isfinite(observed.sum) || !std::isfinite(observed.count)) {
      pk::fail(PROSPECT_INVALID_ARGUMENT, "observed must be finite: it would never be forgotten");
    }
    point.add(from_c(observed));
    const prospect::sum_count state = point.state();
    ema->average = state.sum;
    ema->weight = state.count;
  });
}

prospect_reference_point prospect_ema_point(const prospect_ema* ema) {
  prospect_reference_point result{};
  pk::guard(nullptr, [&] { result = to_c(from_c(pk::require(ema, "ema")).point()); });
  return result;
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
