// Samples on a device as a loss takes them, and what stands for them where there is none: the
// arithmetic is that of the CPU, step by step. Samples and losses in the type of arithmetic,
// everything after them in fp64.
#pragma once

#include <prospect/cuda/batch.hpp>
#include <prospect/cuda/detail/rows.cuh>
#include <prospect/cuda/detail/sequence_kernels.cuh>
#include <prospect/losses/differentiate.hpp>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cuda::detail {

/// What arithmetic on a batch of S is done in, where that is no matter of run time.
template <batch_storage S>
struct arithmetic_of {
  using type = float;
};
template <>
struct arithmetic_of<double> {
  using type = double;
};
template <batch_storage S>
using arithmetic_t = typename arithmetic_of<S>::type;

/// A completion as losses see it. A reference that is not given was found unread; the log-ratio,
/// which rewards are made of, is then the policy's log-probability.
template <class R, class Row>
__device__ completion<R> read_completion(const Row& policy, const Row& reference, std::int64_t i,
                                         R tokens) {
  const R p = read_as<R>(policy, i);
  const R ratio = reference.empty() ? p : p - read_as<R>(reference, i);
  return {.policy = p, .ratio = ratio, .tokens = tokens};
}
/// weight x; a weight of 0 makes everything 0.
template <class R>
__device__ R weighted(R weight, R x) {
  return weight == R(0) ? R(0) : weight * x;
}

template <class Tally>
__device__ void note_nonfinite(Tally& sums, std::int64_t i) {
  sums.nonfinite += 1;
  if (i < sums.first_nonfinite) sums.first_nonfinite = i;
}
/// The same of four rows, of which there is seldom one.
template <class R, class Tally>
__device__ void note_nonfinite(Tally& sums, std::int64_t i, const finite_probe<R> (&of)[four]) {
  if (finite_probe<R>::finite(of)) return;
#pragma unroll
  for (int k = 0; k < four; ++k) {
    if (!of[k].finite()) note_nonfinite(sums, i + k);
  }
}
__device__ inline std::int64_t index_or_none(std::int64_t first) {
  return first == row_sums::none ? -1 : first;
}

}  // namespace prospect::inline v2::cuda::detail
PROSPECT_STRICT_END
