// Pairs among sequences on a device, and the coefficients of those sequences.
#pragma once

#include <prospect/cuda/detail/rows.cuh>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cuda::detail {

/// Pairs among sequences. Coefficients of sequences need to know how often each is named: not at
/// all, and its coefficient is 0; twice, and it is no number, because there is one place for two.
struct named_pairs {
  prospect::detail::pair_indices which{};
  std::int64_t pairs = -1;  ///< how many; below 0 where the sides of a pair lie side by side
  std::int64_t sequences = 0;
  unsigned* named = nullptr;  ///< how often; counted where coefficients of sequences are wanted

  PROSPECT_HD bool given() const { return pairs >= 0; }
  PROSPECT_HD bool scatters() const { return named != nullptr; }
  __device__ bool inside(std::int64_t at) const { return at >= 0 && at < sequences; }

  /// Notes that the sequences of pair i are named.
  __device__ void count(std::int64_t i) const {
    const auto note = [&](std::int64_t at) {
      if (inside(at)) atomicAdd(named + at, 1U);
    };
    note(which.chosen[i]);
    note(which.rejected[i]);
    if (which.third.size() != 0) note(which.third[i]);
  }
  /// Writes the coefficients of pair i's sequences where they are named once, and that of sequence
  /// i where it is not.
  template <class R>
  __device__ void scatter(std::int64_t i, R d_chosen, R d_rejected, R d_third,
                          finite_probe<R>& probe) const {
    // Past the first level of cache, which does not see what other blocks have counted.
    const auto times_named = [&](std::int64_t at) { return __ldcg(named + at); };
    if (i < sequences && times_named(i) != 1) {
      put(which.d_policy, i, times_named(i) == 0 ? R(0) : no_number<R>);
    }
    if (i >= pairs) return;
    const auto put_at = [&](std::int64_t at, R d) {
      if (!inside(at)) return;
      probe.look_at(times_named(at) == 1 ? put(which.d_policy, at, d) : no_number<R>);
    };
    put_at(which.chosen[i], d_chosen);
    put_at(which.rejected[i], d_rejected);
    if (which.third.size() != 0) put_at(which.third[i], d_third);
  }
};

}  // namespace prospect::inline v2::cuda::detail
PROSPECT_STRICT_END
