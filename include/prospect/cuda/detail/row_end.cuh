// The end of a row: the sums of its tiles become the results of its target, by one warp while its
// block waits. So nothing is computed here that nobody asked for, and what the contract does not
// need in fp64 is computed from fp32's functions: a relative error of 3e-7 in a sum's factor, 1e-7
// in log p and in the odds of all other tokens.
#pragma once

#include <prospect/cuda/detail/token_sums.cuh>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cuda::detail {

/// The two results that gradients are made from.
struct log_prob_and_lse {
  double log_prob, lse;
};

/// e^d, d <= 0, to a few ulp of fp32; -inf gives 0.
__device__ inline double falling_exponential(double d) {
  d = fmax(d, -200.0);
  const float high = static_cast<float>(d);
  return static_cast<double>(exact_exponential(1, high, static_cast<float>(d - high)));
}

/// log(1 + q), q >= -1e-6: relative to 1e-7 where it is small, to 1e-7 absolute elsewhere, whatever
/// its size.
__device__ inline double log_1_plus(double q) {
  if (q < 0.5) return static_cast<double>(log1pf(static_cast<float>(q)));
  const double s = 1 + q;
  // s = 2^exponent m, m in [0.75, 1.5)
  const int high = __double2hiint(s);
  const int exponent = (high + 0x80000 >> 20) - 1023;
  const double m = __hiloint2double(high - (exponent << 20), __double2loint(s));
  return exponent * exact_log_2 + static_cast<double>(log1pf(static_cast<float>(m - 1)));
}

/// What a row is finished with on a device.
struct fp32_functions {
  PROSPECT_HD static double exp(double x) noexcept {
#ifdef __CUDA_ARCH__
    return falling_exponential(x);
#else
    return std::exp(x);
#endif
  }
  PROSPECT_HD static double log1p(double x) noexcept {
#ifdef __CUDA_ARCH__
    return log_1_plus(x);
#else
    return std::log1p(x);
#endif
  }
  PROSPECT_HD static double log(double x) noexcept { return log1p(x - 1); }
};

/// What follows from the sums over a row. Statistics are fp64's: an entropy is a difference.
/// Log-probs are the same bits with and without them.
template <bool statistics>
__device__ token_scores finish_scores(const vocabulary_partial& sum) {
  token_scores scores = prospect::finish<fp32_functions>(sum);
  if constexpr (statistics) {
    const token_scores exact = prospect::finish(sum);
    scores.entropy = exact.entropy;
    scores.sum_squares = exact.sum_squares;
  }
  return scores;
}

/// The sums over a row from those of its tiles, by one warp: in its first lane, and the others' are
/// nobody's. `tile(i)` gives the i-th. `whole`: what only statistics and parts of a vocabulary need
/// is added as well.
template <bool statistics, class Tile>
__device__ vocabulary_partial add_tiles(std::int64_t tiles, bool whole, const Tile& tile) {
  constexpr double none = vocabulary_partial::none;
  const auto higher = [](double x, double y) { return x > y ? x : y; };
  const int lane = lane_of_warp();
  int reach = 1;  // a power of 2: lanes with a tile are below it
  while (reach < lanes && reach < tiles) reach *= 2;

  const auto for_each_tile = [&](const auto& f) {
    for (std::int64_t i = lane; i < tiles; i += lanes) f(tile(i));
  };
  double highest = none;
  for_each_tile([&](const vocabulary_partial& p) {
    // Not if there is no sum; but if it is NaN.
    if (p.exponentials != 0 && !(p.shift <= highest)) highest = p.shift;
  });
  for (int step = reach / 2; step > 0; step /= 2) {
    highest = higher(highest, __shfl_xor_sync(all_lanes, highest, step));
  }
  if (highest == none) highest = 0;

  vocabulary_partial sum{};
  sum.shift = highest;
  for_each_tile([&](const vocabulary_partial& p) {
    if (p.exponentials != 0) {
      const double by = highest - p.shift;
      const double factor = rescaling(static_cast<float>(-by));
      sum.exponentials += factor * p.exponentials;
      if constexpr (statistics) {
        sum.weighted += factor * (p.weighted - by * p.exponentials);
        sum.squares += factor * factor * p.squares;
      }
    }
    if constexpr (statistics) sum.logits += p.logits;
    sum.tokens += p.tokens;
    if (p.targets != 0) {
      sum.targets = 1;
      sum.target = p.target;
    }
    sum.before = higher(sum.before, p.before);
    sum.after = higher(sum.after, p.after);
  });
  // Of one lane, if of any.
  const unsigned holders = __ballot_sync(all_lanes, sum.targets != 0);
  if (holders != 0) {
    sum.targets = 1;
    sum.target = __shfl_sync(all_lanes, sum.target, __ffs(static_cast<int>(holders)) - 1);
  }
  const auto add = [](double& x, int step) { x += __shfl_xor_sync(all_lanes, x, step); };
  for (int step = reach / 2; step > 0; step /= 2) {
    add(sum.exponentials, step);
    if constexpr (statistics) {
      add(sum.squares, step);
      add(sum.weighted, step);
      add(sum.logits, step);
    }
  }
  if constexpr (!statistics) sum.squares = sum.weighted = sum.logits = not_a_number;
  if (statistics || whole) {
    for (int step = reach / 2; step > 0; step /= 2) {
      add(sum.tokens, step);
      sum.before = higher(sum.before, __shfl_xor_sync(all_lanes, sum.before, step));
      sum.after = higher(sum.after, __shfl_xor_sync(all_lanes, sum.after, step));
    }
  }
  return sum;
}

/// Where the results of forward passes go: of a row, or what it adds to one whose vocabulary is
/// split.
struct token_results {
  token_outputs<float> out;
  strided_span<vocabulary_partial> partials;

  __device__ void put_log_prob(std::int64_t t, const log_prob_and_lse& s) const {
    if (!out.log_prob.empty()) out.log_prob[t] = static_cast<float>(s.log_prob);
    if (!out.lse.empty()) out.lse[t] = s.lse;
  }
  template <bool statistics>
  __device__ void put(std::int64_t t, const token_scores& s) const {
    put_log_prob(t, {s.log_prob, s.lse});
    if constexpr (statistics) {
      if (!out.entropy.empty()) out.entropy[t] = static_cast<float>(s.entropy);
      if (!out.sum_squares.empty()) out.sum_squares[t] = static_cast<float>(s.sum_squares);
      if (!out.mean_logit.empty()) out.mean_logit[t] = static_cast<float>(s.mean_logit);
      if (!out.target_is_argmax.empty()) out.target_is_argmax[t] = s.target_is_argmax ? 1 : 0;
    }
  }
  /// By one thread.
  template <bool statistics>
  __device__ void put_sum(std::int64_t t, const vocabulary_partial& sum) const {
    if (!partials.empty()) {
      partials[t] = sum;
    } else {
      put<statistics>(t, finish_scores<statistics>(sum));
    }
  }
  /// Of a row that says nothing about a target: 0 everywhere where it is ignored, else NaN. By one
  /// thread.
  template <bool statistics>
  __device__ void finish_unread(std::int64_t t, bool ignored) const {
    if (!partials.empty()) {
      partials[t] = {};
    } else {
      put<statistics>(t, ignored ? token_scores{} : prospect::finish(vocabulary_partial{}));
    }
  }
};

}  // namespace prospect::inline v2::cuda::detail
PROSPECT_STRICT_END
