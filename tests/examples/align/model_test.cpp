// The transformer's hand-written gradient against finite differences, what a position may see, and
// the independence of packed sequences.
#include "model.hpp"

#include <algorithm>
#include <cmath>
#include <span>
#include <vector>

#include "catch.hpp"
#include "model_arithmetic.hpp"
#include "random.hpp"

using namespace align;

namespace {

const model_shape tiny{.vocabulary = 9, .context = 7, .width = 8, .layers = 2, .heads = 2};

// Far from the initial state, where gains are 1 and attention is nearly uniform.
std::vector<double> rough_parameters(const model_shape& shape) {
  random_source random{7};
  std::vector<double> parameters(parameter_count(shape));
  for (double& p : parameters) p = 1.2 * random.uniform() - 0.6;
  return parameters;
}

packed_batch two_sequences() {
  packed_batch batch;
  batch.append(std::vector<token>{1, 4, 2}, std::vector<token>{5, 6, 7, 3});
  batch.append(std::vector<token>{1, 8, 4, 2}, std::vector<token>{4, 5, 3});
  return batch;
}

row_major<double> logits_of(const model_shape& shape, const std::vector<double>& parameters,
                            const packed_batch& batch) {
  activations<double> memory;
  forward<double>(shape, parameters, batch, memory);
  return logits<double>(shape, parameters, memory);
}

// A function of all logits with a slope of its own in each of them, and some curvature.
double value(const row_major<double>& x) {
  double sum = 0;
  for (Eigen::Index i = 0; i < x.size(); ++i) {
    sum += std::sin(static_cast<double>(i)) * x.data()[i] + 0.1 * std::cos(x.data()[i]);
  }
  return sum;
}

// Adds the slope of `value` by every parameter; the head's part is the caller's, as in training.
void differentiate_value(const model_shape& shape, const std::vector<double>& parameters,
                         const packed_batch& batch, std::span<double> gradient) {
  activations<double> memory;
  forward<double>(shape, parameters, batch, memory);
  row_major<double> d_logits = logits<double>(shape, parameters, memory);
  for (Eigen::Index i = 0; i < d_logits.size(); ++i) {
    d_logits.data()[i] = std::sin(static_cast<double>(i)) - 0.1 * std::sin(d_logits.data()[i]);
  }
  const matrix<double> hidden = memory.normed_scored.view();
  memory.d_normed_scored.reshape(hidden.rows(), hidden.cols()) =
      d_logits * head_of(shape, std::span{parameters});
  head_of(shape, gradient) += d_logits.transpose() * hidden;
  backward<double>(shape, parameters, batch, memory, gradient);
}

}  // namespace

TEST_CASE("the gradient of every parameter agrees with finite differences") {
  std::vector<double> parameters = rough_parameters(tiny);
  const packed_batch batch = two_sequences();
  std::vector<double> gradient(parameters.size());
  differentiate_value(tiny, parameters, batch, gradient);

  double worst = 0;
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    constexpr double h = 1e-5;
    const double here = parameters[i];
    parameters[i] = here + h;
    const double above = value(logits_of(tiny, parameters, batch));
    parameters[i] = here - h;
    const double below = value(logits_of(tiny, parameters, batch));
    parameters[i] = here;
    const double slope = (above - below) / (2 * h);
    worst = std::max(worst, std::abs(gradient[i] - slope) / (1 + std::abs(slope)));
  }
  CHECK(worst < 1e-8);
  CHECK(std::ranges::count_if(gradient, [](double g) { return g != 0; }) >
        static_cast<std::ptrdiff_t>(gradient.size() / 2));
}

TEST_CASE("backward adds to the gradient it is given") {
  const std::vector<double> parameters = rough_parameters(tiny);
  const packed_batch batch = two_sequences();
  std::vector<double> once(parameters.size()), onto_one(parameters.size(), 1.0);
  differentiate_value(tiny, parameters, batch, once);
  differentiate_value(tiny, parameters, batch, onto_one);
  for (std::size_t i = 0; i < once.size(); ++i) {
    REQUIRE_THAT(onto_one[i], WithinAbs(once[i] + 1, 1e-12));
  }
}

TEST_CASE("a position sees what lies before it and nothing behind it") {
  const std::vector<double> parameters = rough_parameters(tiny);
  const auto with_completion = [&](std::vector<token> completion) {
    packed_batch batch;
    batch.append(std::vector<token>{1, 4, 2}, completion);
    return logits_of(tiny, parameters, batch);
  };
  const auto a = with_completion({5, 6, 7, 3}), b = with_completion({5, 6, 8, 3});
  CHECK((a.topRows(3) - b.topRows(3)).cwiseAbs().maxCoeff() < 1e-14);
  CHECK((a.row(3) - b.row(3)).cwiseAbs().maxCoeff() > 1e-3);
}

TEST_CASE("sequences of a batch do not see each other") {
  const std::vector<double> parameters = rough_parameters(tiny);
  packed_batch first, second;
  first.append(std::vector<token>{1, 4, 2}, std::vector<token>{5, 6, 7, 3});
  second.append(std::vector<token>{1, 8, 4, 2}, std::vector<token>{4, 5, 3});
  const auto together = logits_of(tiny, parameters, two_sequences());
  CHECK((together.topRows(4) - logits_of(tiny, parameters, first)).cwiseAbs().maxCoeff() < 1e-13);
  CHECK((together.bottomRows(3) - logits_of(tiny, parameters, second)).cwiseAbs().maxCoeff() <
        1e-13);
}

TEST_CASE("float and double compute the same model") {
  const aligned_vector<float> narrow = initial_parameters(tiny, 3);
  const std::vector<double> wide(narrow.begin(), narrow.end());
  const packed_batch batch = two_sequences();
  activations<float> memory;
  forward<float>(tiny, narrow, batch, memory);
  const auto expected = logits_of(tiny, wide, batch);
  CHECK((logits<float>(tiny, narrow, memory).cast<double>() - expected).cwiseAbs().maxCoeff() <
        1e-5 * expected.cwiseAbs().maxCoeff());
}

TEST_CASE("the initial state depends on the seed and on nothing else") {
  CHECK((initial_parameters(tiny, 3) == initial_parameters(tiny, 3)));
  CHECK((initial_parameters(tiny, 3) != initial_parameters(tiny, 4)));
}

TEST_CASE("the initial state is GPT-2's: small normal weights, smaller into the stream, gains 1") {
  const model_shape shape{.vocabulary = 200, .context = 50, .width = 32, .layers = 2, .heads = 2};
  const aligned_vector<float> flat = initial_parameters(shape, 1);
  const auto w = detail::carve(shape, std::span{flat});
  const auto deviation = [](const auto& m) {
    return std::sqrt(m.template cast<double>().squaredNorm() / static_cast<double>(m.size()));
  };
  const auto mean = [](const auto& m) { return m.template cast<double>().mean(); };
  for (const auto& m : {w.words, w.positions, w.head}) {
    CHECK_THAT(deviation(m), WithinRel(0.02, 0.1));
    CHECK_THAT(mean(m), WithinAbs(0, 0.002));
  }
  CHECK((w.output_gain.array() == 1).all());
  REQUIRE(w.blocks.size() == 2);
  for (const auto& block : w.blocks) {
    CHECK_THAT(deviation(block.query_key_value), WithinRel(0.02, 0.1));
    CHECK_THAT(deviation(block.up), WithinRel(0.02, 0.1));
    CHECK_THAT(deviation(block.mix), WithinRel(0.01, 0.1));  // two layers add four times
    CHECK_THAT(deviation(block.down), WithinRel(0.01, 0.1));
    CHECK((block.attention_gain.array() == 1).all());
    CHECK((block.mlp_gain.array() == 1).all());
  }
}

TEST_CASE("a sequence may fill the context, and one beyond it is refused") {
  packed_batch full;
  full.append(std::vector<token>{1, 4, 4, 2}, std::vector<token>{5, 5, 5, 3});
  activations<float> whole;
  CHECK_NOTHROW(forward<float>(tiny, initial_parameters(tiny, 1), full, whole));
  packed_batch batch;
  batch.append(std::vector<token>{1, 4, 4, 4, 2}, std::vector<token>{5, 5, 5, 3});
  activations<float> memory;
  CHECK_THROWS_AS(forward<float>(tiny, initial_parameters(tiny, 1), batch, memory),
                  std::invalid_argument);
}
