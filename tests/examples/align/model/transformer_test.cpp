// The transformer's hand-written gradient against finite differences, what a position may see, the
// independence of packed sequences, and that what is left for the backward pass changes nothing.
#include "model/transformer.hpp"

#include <algorithm>
#include <cmath>
#include <span>
#include <vector>

#include "catch.hpp"
#include "model/transformer_passes.hpp"
#include "random_source.hpp"

using namespace align;

namespace {

const model_shape grouped{.vocabulary = 9,
                          .context = 7,
                          .width = 8,
                          .layers = 2,
                          .heads = 4,
                          .key_value_heads = 2,
                          .head_width = 4,
                          .feed_forward = 6,
                          .rope_base = 50,
                          .tied_head = false};

const lora_settings rank_two{.rank = 2, .alpha = 3};

// Far from any initial state, where gains are 1 and attention is nearly uniform.
std::vector<double> rough(std::size_t count, std::uint64_t seed = 7) {
  random_source random{seed};
  std::vector<double> parameters(count);
  for (double& p : parameters) p = 1.2 * random.uniform() - 0.6;
  return parameters;
}

packed_batch two_sequences() {
  packed_batch batch;
  batch.append(std::vector<token>{1, 4, 2}, std::vector<token>{5, 6, 7, 3});
  batch.append(std::vector<token>{1, 8, 4, 2}, std::vector<token>{4, 5});
  return batch;
}

using logits = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using constant_map = Eigen::Map<const logits>;

constant_map as_eigen(matrix<const double> m) { return {m.data, m.rows, m.columns}; }

// A model of doubles, with or without adapters.
struct subject {
  model_shape shape = grouped;
  lora_settings lora = {};
  std::vector<double> parameters = rough(parameter_count(shape));
  std::vector<double> adapters = rough(adapter_count(shape, lora), 8);
  leave left = leave::everything;

  model_view<double> view() const { return {shape, parameters, lora, adapters}; }
  constant_map head() const { return as_eigen(carve<const double>(shape, parameters).head.weight); }
};

logits logits_of(const subject& of, const packed_batch& batch) {
  workers on{2};
  activations<double> memory;
  forward<double>(of.view(), batch, of.left, memory, on);
  return as_eigen(memory.hidden.view()) * of.head().transpose();
}

// A function of all logits with a slope of its own in each of them, and some curvature.
double value(const logits& x) {
  double sum = 0;
  for (Eigen::Index i = 0; i < x.size(); ++i) {
    sum += std::sin(static_cast<double>(i)) * x.data()[i] + 0.1 * std::cos(x.data()[i]);
  }
  return sum;
}

// Adds the slope of `value`; the head's part is the caller's, as in training.
void differentiate_value(const subject& of, const packed_batch& batch, std::span<double> d,
                         std::span<double> d_adapters = {}, int threads = 2) {
  workers on{threads};
  activations<double> memory;
  forward<double>(of.view(), batch, of.left, memory, on);
  const constant_map hidden = as_eigen(memory.hidden.view());
  logits d_logits = hidden * of.head().transpose();
  for (Eigen::Index i = 0; i < d_logits.size(); ++i) {
    d_logits.data()[i] = std::sin(static_cast<double>(i)) - 0.1 * std::sin(d_logits.data()[i]);
  }
  const matrix<double> d_hidden = memory.d_hidden.reshape(hidden.rows(), hidden.cols());
  Eigen::Map<logits>(d_hidden.data, d_hidden.rows, d_hidden.columns) = d_logits * of.head();
  if (!d.empty()) {
    const matrix<double> d_head = carve(of.shape, d).head.weight;
    Eigen::Map<logits>(d_head.data, d_head.rows, d_head.columns) += d_logits.transpose() * hidden;
  }
  backward<double>(of.view(), batch, memory, {d, d_adapters}, on);
}

// The largest difference between `slopes` and finite differences by each of `numbers`.
double worst_slope(const subject& of, std::vector<double>& numbers, std::span<const double> slopes,
                   const packed_batch& batch) {
  double worst = 0;
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    constexpr double h = 1e-5;
    const double here = numbers[i];
    numbers[i] = here + h;
    const double above = value(logits_of(of, batch));
    numbers[i] = here - h;
    const double below = value(logits_of(of, batch));
    numbers[i] = here;
    const double slope = (above - below) / (2 * h);
    worst = std::max(worst, std::abs(slopes[i] - slope) / (1 + std::abs(slope)));
  }
  return worst;
}

void require_most_are_not_zero(std::span<const double> slopes) {
  REQUIRE(2 * std::ranges::count_if(slopes, [](double g) { return g != 0; }) >
          static_cast<std::ptrdiff_t>(slopes.size()));
}

}  // namespace

TEST_CASE("the gradient of every parameter agrees with finite differences") {
  subject of{.shape = grouped};
  of.shape.tied_head = GENERATE(false, true);
  of.shape.rope_divisors = GENERATE(std::vector<float>{}, std::vector<float>{1, 3});
  of.parameters = rough(parameter_count(of.shape));
  of.left = GENERATE(leave::inputs, leave::everything);
  const packed_batch batch = two_sequences();
  std::vector<double> gradient(of.parameters.size());
  differentiate_value(of, batch, gradient);
  CHECK(worst_slope(of, of.parameters, gradient, batch) < 1e-8);
  require_most_are_not_zero(gradient);
}

TEST_CASE("the gradient of every adapter agrees with finite differences, the model being frozen") {
  subject of{.lora = rank_two};
  of.left = GENERATE(leave::inputs, leave::everything);
  const packed_batch batch = two_sequences();
  std::vector<double> gradient(of.adapters.size());
  differentiate_value(of, batch, {}, gradient);
  CHECK(worst_slope(of, of.adapters, gradient, batch) < 1e-8);
  require_most_are_not_zero(gradient);
}

TEST_CASE("an adapted model is the model with alpha / rank B A added to its matrices") {
  const subject of{.lora = rank_two};
  subject merged;
  merged.parameters = of.parameters;
  const auto add = [&](const linear<double>& to, const linear<const double>& by) {
    const std::int64_t rank = of.lora.rank;
    for (std::size_t p = 0; p < by.parts.size(); ++p) {
      const matrix<const double> up = by.parts[p].up;
      for (std::int64_t i = 0; i < up.rows; ++i) {
        for (std::int64_t j = 0; j < by.down.columns; ++j) {
          for (std::int64_t k = 0; k < rank; ++k) {
            to.weight.row(by.parts[p].first_output + i)[j] +=
                of.lora.alpha / static_cast<double>(rank) * up.row(i)[k] *
                by.down.row(static_cast<std::int64_t>(p) * rank + k)[j];
          }
        }
      }
    }
  };
  const auto from = carve<const double>(of.shape, of.parameters, of.lora, of.adapters);
  const auto to = carve<double>(merged.shape, merged.parameters);
  for (std::size_t i = 0; i < from.blocks.size(); ++i) {
    add(to.blocks[i].query_key_value, from.blocks[i].query_key_value);
    add(to.blocks[i].mix, from.blocks[i].mix);
    add(to.blocks[i].gate_up, from.blocks[i].gate_up);
    add(to.blocks[i].down, from.blocks[i].down);
  }
  const packed_batch batch = two_sequences();
  CHECK((logits_of(of, batch) - logits_of(merged, batch)).cwiseAbs().maxCoeff() < 1e-12);
}

TEST_CASE("backward adds to the gradient it is given") {
  const subject of;
  const packed_batch batch = two_sequences();
  std::vector<double> once(of.parameters.size()), onto_one(of.parameters.size(), 1.0);
  differentiate_value(of, batch, once);
  differentiate_value(of, batch, onto_one);
  for (std::size_t i = 0; i < once.size(); ++i) {
    REQUIRE_THAT(onto_one[i], WithinAbs(once[i] + 1, 1e-12));
  }
}

TEST_CASE("neither threads nor what is computed again change a bit") {
  const packed_batch batch = two_sequences();
  subject of;
  std::vector<double> one(of.parameters.size()), other(of.parameters.size());
  differentiate_value(of, batch, one, {}, 1);
  of.left = leave::inputs;
  differentiate_value(of, batch, other, {}, 3);
  CHECK((one == other));
  const logits kept = logits_of(of, batch);
  of.left = leave::nothing;
  CHECK((logits_of(of, batch) == kept));
}

TEST_CASE("a position sees what lies before it and nothing behind it") {
  const auto with_completion = [&](std::vector<token> completion) {
    packed_batch batch;
    batch.append(std::vector<token>{1, 4, 2}, completion);
    return logits_of(subject{}, batch);
  };
  const auto a = with_completion({5, 6, 7, 3}), b = with_completion({5, 6, 8, 3});
  CHECK((a.topRows(3) - b.topRows(3)).cwiseAbs().maxCoeff() < 1e-14);
  CHECK((a.row(3) - b.row(3)).cwiseAbs().maxCoeff() > 1e-3);
}

TEST_CASE("a long sequence, scored in several parts, sees all that lies before") {
  subject of;
  of.shape.context = 300;
  const auto with_first = [&](token first) {
    std::vector<token> prompt(150, 4), completion(120, 5);
    prompt[0] = first;
    packed_batch batch;
    batch.append(prompt, completion);
    return logits_of(of, batch);
  };
  const auto a = with_first(6), b = with_first(7);
  CHECK((a - b).rowwise().norm().minCoeff() > 1e-9);
}

TEST_CASE("sequences of a batch do not see each other") {
  packed_batch first, second;
  first.append(std::vector<token>{1, 4, 2}, std::vector<token>{5, 6, 7, 3});
  second.append(std::vector<token>{1, 8, 4, 2}, std::vector<token>{4, 5});
  const auto together = logits_of(subject{}, two_sequences());
  CHECK((together.topRows(4) - logits_of(subject{}, first)).cwiseAbs().maxCoeff() < 1e-13);
  CHECK((together.bottomRows(2) - logits_of(subject{}, second)).cwiseAbs().maxCoeff() < 1e-13);
}

TEST_CASE("float, bfloat16 and double compute the same model") {
  const subject of;
  const packed_batch batch = two_sequences();
  const logits expected = logits_of(of, batch);
  const auto error_of = [&]<class W>(W) {
    const std::vector<W> parameters = [&] {
      std::vector<W> narrow;
      for (const double p : of.parameters) narrow.push_back(W(static_cast<float>(p)));
      return narrow;
    }();
    workers on{2};
    activations<W> memory;
    forward<W>({of.shape, parameters}, batch, leave::nothing, memory, on);
    const matrix<const W> hidden = memory.hidden.view(),
                          head = carve<const W>(of.shape, parameters).head.weight;
    double worst = 0;
    for (std::int64_t i = 0; i < hidden.rows; ++i) {
      for (std::int64_t v = 0; v < head.rows; ++v) {
        double x = 0;
        for (std::int64_t j = 0; j < hidden.columns; ++j) {
          x += double{static_cast<float>(hidden.row(i)[j])} *
               double{static_cast<float>(head.row(v)[j])};
        }
        worst = std::max(worst, std::abs(x - expected(i, v)));
      }
    }
    return worst / expected.cwiseAbs().maxCoeff();
  };
  CHECK(error_of(float{}) < 1e-5);
  CHECK(error_of(bfloat16{}) < 0.05);
  CHECK(error_of(bfloat16{}) > 1e-5);  // it was rounded
}

TEST_CASE("the memory of both passes is what was told beforehand") {
  const auto check = [&]<class W>(W) {
    const leave left = GENERATE(leave::nothing, leave::inputs, leave::everything);
    const lora_settings lora = GENERATE(lora_settings{}, rank_two);
    const std::vector<W> parameters(parameter_count(grouped), W(0.1F));
    const std::vector<W> adapters(adapter_count(grouped, lora), W(0.1F));
    const model_view<W> view{grouped, parameters, lora, adapters};
    const packed_batch batch = two_sequences();
    std::vector<float> d_parameters(parameters.size()), d_adapters(adapters.size());
    workers on{2};
    activations<W> memory;
    forward<W>(view, batch, left, memory, on);
    if (left != leave::nothing) {
      memory.d_hidden.reshape(memory.hidden.view().rows, memory.hidden.view().columns);
      backward<W>(view, batch, memory, {d_parameters, d_adapters}, on);
    }
    CHECK(memory.bytes() ==
          activation_bytes<W>(grouped, lora, batch.inputs.size(), batch.scored.size(), left));
  };
  check(float{});
  check(bfloat16{});
}

TEST_CASE("a sequence may fill the context, and one beyond it is refused; so is an unknown token") {
  const std::vector<float> parameters(parameter_count(grouped), 0.1F);
  workers on{1};
  activations<float> memory;
  const auto pass = [&](std::vector<token> prompt, std::vector<token> completion) {
    packed_batch batch;
    batch.append(prompt, completion);
    forward<float>({grouped, parameters}, batch, leave::nothing, memory, on);
  };
  CHECK_NOTHROW(pass({1, 4, 4, 2}, {5, 5, 5, 3}));
  CHECK_THROWS_AS(pass({1, 4, 4, 4, 2}, {5, 5, 5, 3}), std::invalid_argument);
  CHECK_THROWS_AS(pass({1, 9, 2}, {5}), std::invalid_argument);
  CHECK_THROWS_AS(pass({1, -1, 2}, {5}), std::invalid_argument);
}
