// What the sequence kernel does with mismatched rows, and what they show.
#pragma once

#include <prospect/cuda/detail/samples.cuh>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cuda::detail {

/// What mismatched rows showed, from the sums of a pass.
__device__ inline observation observation_of(const row_sums& seen, int ratio, int count) {
  observation o;
  o.sum = seen.sum[ratio];
  o.count = seen.sum[count];
  o.nonfinite = seen.nonfinite;
  o.first_nonfinite = index_or_none(seen.first_nonfinite);
  return o;
}

/// The sum of mismatched rows' log-ratios and their number.
template <batch_storage S, std::floating_point R = arithmetic_t<S>>
struct mismatched_job {
  mismatched_batch<S> in;

  struct sample {
    bool counted = false;
    R ratio = 0;
  };
  struct terms {};
  using tally = row_sums;

  PROSPECT_HD bool wants(int pass) const { return pass == results; }
  PROSPECT_HD std::int64_t rows(int) const { return in.policy.size(); }

  __device__ terms begin(const pass_totals&) const { return {}; }
  __device__ sample load(int, std::int64_t i) const {
    sample s;
    s.counted = read_or(in.tokens, i, 1) > 0;
    if (s.counted) s.ratio = read_as<R>(in.policy, i) - read_as<R>(in.reference, i);
    return s;
  }
  __device__ void add(int, std::int64_t i, const sample& s, const terms&, row_sums& sums) const {
    const bool fine = is_finite(s.ratio);
    sums.sum[0] += fine ? static_cast<double>(s.ratio) : 0;
    sums.sum[1] += s.counted && fine ? 1 : 0;
    if (!fine) note_nonfinite(sums, i);
  }
  __device__ void finish(const pass_totals& totals, const terms&) const {
    *in.observed = observation_of(totals.of[results], 0, 1);
  }
};

}  // namespace prospect::inline v2::cuda::detail
PROSPECT_STRICT_END
