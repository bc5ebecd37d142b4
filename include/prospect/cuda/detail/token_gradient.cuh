// The gradient of the loss in one tile of logits, by one warp: (a softmax(z) - b onehot(target))
// dz/dx, every element from itself and the row's lse alone.
#pragma once

#include <prospect/cuda/detail/exponentials.cuh>
#include <prospect/cuda/detail/words.cuh>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v1::cuda::detail {

/// What the gradient of a row depends on besides its logits.
struct row_terms {
  float log_prob;
  double lse;
  float a, b;  ///< of softmax and of onehot

  __device__ bool zero() const { return a == 0 && b == 0; }
};

/// a p - b: from 1 - p where the model is confident, because as a difference it would lose its
/// digits; from the logit where it is not, because log p in fp32 has too few.
__device__ inline double at_target(double z, const row_terms& row) {
  const double a = row.a;
  const double b = row.b;
  const double log_prob = row.log_prob;
  return log_prob < -0.5 ? a * exp(z - row.lse) - b : (a - b) + a * expm1(log_prob);
}

template <class Softmax>
struct gradient_of_logit {
  static constexpr int words_in_flight = Softmax::words_in_flight;

  Softmax softmax;
  int target;
  float target_value;

  __device__ float operator()(float x, int column) const {
    return column == target ? target_value : softmax(x);
  }
};

struct constant {
  static constexpr int words_in_flight = 4;

  float value;
  __device__ float operator()(float, int) const { return value; }
};

/// Writes one number over a tile without reading it.
template <storage S>
__device__ void write_constant(S* out, int columns, float value) {
  const row_words<S, nothing> tile{
      .data = out, .columns = columns, .at_start = true, .readable = columns};
  transform(tile, out, constant{value});
}

/// Writes the gradient of a tile to `out`, which may be where the tile lies. `target` is a column
/// of the tile, or not. A NaN anywhere in the terms is a NaN everywhere in the row.
template <storage S, class Memory, class Map>
__device__ void write_gradient(const row_words<S, Memory>& tile, S* out, int target,
                               const row_terms& row, const Map& map) {
  if (row.lse != row.lse || row.a != row.a || row.b != row.b) {
    return write_constant(out, tile.columns, not_a_number);
  }
  const auto softmax = map.relative_to(row.lse, row.a);
  float value = 0;
  if (target >= 0 && target < tile.columns) {
    const float x = prospect::load(Memory::load(tile.data + target));
    value = static_cast<float>(map.slope(x) * at_target(map.z(x), row));
  }
  // The target's logit is read by all lanes before one of them overwrites it.
  __syncwarp();
  transform(tile, out, gradient_of_logit<decltype(softmax)>{softmax, target, value});
}

struct scaled_by {
  static constexpr int words_in_flight = 4;

  float factor;
  __device__ float operator()(float x, int) const { return factor * x; }
};

}  // namespace prospect::inline v1::cuda::detail
PROSPECT_STRICT_END
