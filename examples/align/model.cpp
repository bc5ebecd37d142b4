// The size of the model, its initial state, and its arithmetic in float.
#include "model.hpp"

#include <cmath>
#include <numbers>

#include "model_arithmetic.hpp"
#include "random.hpp"

namespace align {
namespace {

double normal(random_source& random) {  // Box and Muller
  const double radius = std::sqrt(-2 * std::log1p(-random.uniform()));
  return radius * std::cos(2 * std::numbers::pi * random.uniform());
}

}  // namespace

std::size_t parameter_count(const model_shape& shape) {
  std::size_t count = 0;
  detail::carve<const float>(shape, [&count](int rows, int columns) {
    count += static_cast<std::size_t>(rows) * static_cast<std::size_t>(columns);
    return matrix_of<const float>(nullptr, rows, columns);
  });
  return count;
}

aligned_vector<float> initial_parameters(const model_shape& shape, std::uint64_t seed) {
  aligned_vector<float> parameters(parameter_count(shape));
  auto w = detail::carve(shape, std::span{parameters});
  random_source random{seed};
  const auto fill = [&random](matrix_of<float>& target, double deviation) {
    for (float& x : target.reshaped()) x = static_cast<float>(deviation * normal(random));
  };
  constexpr double deviation = 0.02;  // GPT-2's
  // What is added to the residual stream shrinks with the number of additions, also as in GPT-2.
  const double residual = deviation / std::sqrt(2.0 * shape.layers);
  fill(w.words, deviation);
  fill(w.positions, deviation);
  fill(w.head, deviation);
  w.output_gain.setOnes();
  for (auto& block : w.blocks) {
    block.attention_gain.setOnes();
    block.mlp_gain.setOnes();
    fill(block.query_key_value, deviation);
    fill(block.mix, residual);
    fill(block.up, deviation);
    fill(block.down, residual);
  }
  return parameters;
}

template const_matrix<float> head_of<const float>(const model_shape&, std::span<const float>);
template matrix<float> head_of<float>(const model_shape&, std::span<float>);
template void forward<float>(const model_shape&, std::span<const float>, const packed_batch&,
                             activations<float>&);
template void backward<float>(const model_shape&, std::span<const float>, const packed_batch&,
                              activations<float>&, std::span<float>);
template row_major<float> logits<float>(const model_shape&, std::span<const float>,
                                        const activations<float>&);

}  // namespace align
