// What the sequence kernel does with a value estimate.
#pragma once

#include <prospect/cuda/detail/samples.cuh>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cuda::detail {

template <class Loss, std::floating_point R>
struct value_job {
  enum { loss_sum, counted };

  Loss loss;
  value_batch in;
  value_outputs out;
  denominator by;
  value_metrics* metrics;

  struct sample {
    bool counted = false;
    value_estimate<R> value;
  };
  struct terms {
    double factor;
  };
  using tally = row_sums;

  PROSPECT_HD bool wants(int pass) const {
    return pass == results || (pass == observe && by.counts() && !in.mask.empty());
  }
  PROSPECT_HD std::int64_t rows(int) const { return in.value.size(); }

  __device__ terms begin(const pass_totals& totals) const {
    const double n =
        in.mask.empty() ? static_cast<double>(in.value.size()) : totals.of[observe].sum[counted];
    return {by.factor(n)};
  }
  __device__ sample load(int pass, std::int64_t i) const {
    sample s;
    s.counted = in.mask.empty() || in.mask[i];
    if (s.counted && pass == results) {
      s.value = {read_as<R>(in.value, i), read_as<R>(in.old_value, i), read_as<R>(in.returns, i)};
    }
    return s;
  }
  __device__ void add(int pass, std::int64_t i, const sample& s, const terms& t,
                      row_sums& sums) const {
    sums.sum[counted] += s.counted ? 1 : 0;
    if (pass == observe) return;
    R loss_out = 0, d_value = 0;
    finite_probe<R> probe;
    if (s.counted) {
      const auto value = differentiate(loss, s.value);
      probe.look_at(s.value.value);
      probe.look_at(s.value.old_value);
      probe.look_at(s.value.returns);
      loss_out = value.loss;
      d_value = static_cast<R>(t.factor * static_cast<double>(value.d_value));
      sums.sum[loss_sum] += static_cast<double>(value.loss);
    }
    probe.look_at(put(out.loss, i, loss_out));
    probe.look_at(put(out.d_value, i, d_value));
    if (!probe.finite()) note_nonfinite(sums, i);
  }
  __device__ void finish(const pass_totals& totals, const terms& t) const {
    if (metrics == nullptr) return;
    const row_sums& sums = totals.of[results];
    const double n = sums.sum[counted];
    *metrics = {.loss = {.sum = sums.sum[loss_sum], .count = n},
                .nonfinite = {.sum = sums.nonfinite, .count = n},
                .first_nonfinite = index_or_none(sums.first_nonfinite),
                .total = t.factor * sums.sum[loss_sum]};
  }
};

}  // namespace prospect::inline v2::cuda::detail
PROSPECT_STRICT_END
