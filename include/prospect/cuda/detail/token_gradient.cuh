// The gradient of the loss in one tile of logits, by one warp, every element from itself and the
// row's lse alone: (a softmax(z) - b onehot(target)) dz/dx, and where the entropy H has a
// coefficient c, -c p (log p + H) dz/dx. Off the target the two are one number,
//
//   p (a - c (z - E[z])) dz/dx,   E[z] = lse - H.
#pragma once

#include <prospect/cuda/detail/exponentials.cuh>
#include <prospect/cuda/detail/words.cuh>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cuda::detail {

/// What the gradient of a row depends on besides its logits.
struct row_terms {
  float log_prob;
  double lse;
  float a, b;  ///< of softmax and of onehot

  __device__ bool zero() const { return a == 0 && b == 0; }
  __device__ bool is_nan() const { return !prospect::detail::is_finite(lse) || a != a || b != b; }

  /// a p - b: from 1 - p where the model is confident, because as a difference it would lose its
  /// digits; from the logit where it is not, because log p in fp32 has too few.
  __device__ double at_target(double z) const {
    const double of_softmax = a;
    const double of_onehot = b;
    const double log_p = log_prob;
    return log_p < -0.5 ? of_softmax * exp(z - lse) - of_onehot
                        : (of_softmax - of_onehot) + of_softmax * expm1(log_p);
  }
  template <storage S, class Map>
  __device__ auto off_target(const Map& map) const {
    return map.template relative_to<S>({.lse = lse, .factor = a});
  }
};

/// p (a - c (z - mean)). What is `farthest` below the mean, or at -inf, has no probability: 0 of it
/// is to be left, and no NaN.
template <class Softmax, class Distance>
struct tilted_softmax {
  static constexpr int words_in_flight = Softmax::words_in_flight;
  static constexpr float farthest = -4096;

  Softmax softmax;
  Distance from_mean;
  float a, c;

  __device__ float operator()(float x) const {
    return softmax(x) * (a - c * fmaxf(farthest, from_mean(x)));
  }
};

/// The same with a coefficient for the row's entropy. Where that is 0 it has the bits of the
/// others.
struct tilted_row_terms : row_terms {
  float c, entropy;

  __device__ bool zero() const { return row_terms::zero() && c == 0; }
  __device__ bool is_nan() const {
    return row_terms::is_nan() || c != c || !prospect::detail::is_finite(entropy);
  }

  __device__ double at_target(double z) const {
    const double l = log_prob < -0.5F ? z - lse : static_cast<double>(log_prob);
    const double p = exp(l);
    const double slope = p == 0 ? 0.0 : -p * (l + entropy);  // of a token that cannot be, too
    return row_terms::at_target(z) + c * slope;
  }
  /// The larger coefficient becomes part of the exponential, where a tiny one keeps its digits.
  template <storage S, class Map>
  __device__ auto off_target(const Map& map) const {
    const float factor = c == 0 ? a : fmaxf(fabsf(a), fabsf(c));
    // So much as a distance may raise what would be nothing by itself.
    const softmax_terms terms{
        .lse = lse, .factor = factor, .raised = c != 0 && fabsf(factor) < 1 ? 12 : 0};
    const float lower = ldexpf(1, -terms.raised);
    const auto softmax = map.template relative_to<S>(terms);
    const auto from_mean = map.from(lse - entropy);
    return tilted_softmax<decltype(softmax), decltype(from_mean)>{
        softmax, from_mean, c == 0 ? lower : lower * __fdiv_rn(a, factor),
        c == 0 ? 0.0F : lower * __fdiv_rn(c, factor)};
  }
};

struct constant {
  static constexpr int words_in_flight = 4;

  float value;
  __device__ float operator()(float) const { return value; }
};

/// Writes one number over a tile without reading it.
template <storage S>
__device__ void write_constant(S* out, int columns, float value) {
  const row_words<S, nothing> tile{
      .data = out, .columns = columns, .at_start = true, .readable = columns};
  transform(tile, out, constant{value});
}

/// Writes the gradient of a tile to `out`, which may be where the tile lies. `target` is a column
/// of the tile, or not. A NaN anywhere in the terms, or an infinite lse, is a NaN everywhere in the
/// row.
template <storage S, class Memory, storage Out, class Terms, class Map>
__device__ void write_gradient(const row_words<S, Memory>& tile, Out* out, int target,
                               const Terms& row, const Map& map) {
  if (row.is_nan()) return write_constant(out, tile.columns, not_a_number);
  const auto softmax = row.template off_target<S>(map);
  const bool in_tile = target >= 0 && target < tile.columns;
  float value = 0;
  if (in_tile) {
    const float x = prospect::load(Memory::load(tile.data + target));
    value = static_cast<float>(map.slope(x) * row.at_target(map.z(x)));
  }
  // The target's logit is read by all lanes before one of them overwrites it, with what it would be
  // as any other column: to ask each whether it is the target costs more than to write it again.
  __syncwarp();
  transform(tile, out, softmax);
  __syncwarp();
  if (in_tile && lane_of_warp() == 0) out[target] = store<Out>(value);
}

struct scaled_by {
  static constexpr int words_in_flight = 4;

  float factor;
  __device__ float operator()(float x) const { return factor * x; }
};

}  // namespace prospect::inline v2::cuda::detail
PROSPECT_STRICT_END
