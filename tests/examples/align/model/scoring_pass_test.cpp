// What a model gives to a batch, and its gradient by what is trained.
#include <algorithm>
#include <cmath>
#include <span>
#include <vector>

#include "catch.hpp"
#include "model/language_model.hpp"
#include "rough_model.hpp"

using namespace align;

namespace {

constexpr lora_settings three_ranks{.rank = 3, .alpha = 4};
constexpr lora_settings head_too{.rank = 3, .alpha = 4, .head = true};

const std::vector<double> some_coefficients{0.7, -1.1, 0.4};

double weighted(const language_model& model, const packed_batch& batch) {
  workers on{1};
  scoring_pass pass(model.storage());
  const auto scores = pass.score(model, batch, purpose::evaluation, on);
  double sum = 0;
  for (std::size_t i = 0; i < scores.size(); ++i) sum += some_coefficients[i] * scores[i];
  return sum;
}

std::vector<float> gradient_of(const language_model& model, const packed_batch& batch,
                               purpose why = purpose::training, int threads = 2) {
  workers on{threads};
  scoring_pass pass(model.storage());
  std::vector<float> gradient(model.trained().size());
  pass.score(model, batch, why, on);
  pass.add_gradient(model, batch, some_coefficients, gradient, on);
  return gradient;
}

// Of the weighted sum, along `direction`.
double slope_along(language_model model, const std::vector<float>& direction,
                   const packed_batch& batch) {
  const double h = 0.02 / norm_of(direction);
  const std::vector<float> start{model.trained().begin(), model.trained().end()};
  const auto at = [&](double distance) {
    for (std::size_t i = 0; i < start.size(); ++i) {
      model.trained()[i] = static_cast<float>(start[i] + distance * direction[i]);
    }
    model.renew();
    return weighted(model, batch);
  };
  return (at(h) - at(-h)) / (2 * h);
}

double dot(const std::vector<float>& a, const std::vector<float>& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += double{a[i]} * double{b[i]};
  return sum;
}

double relative_distance(std::vector<float> a, const std::vector<float>& b) {
  for (std::size_t i = 0; i < a.size(); ++i) a[i] -= b[i];
  return norm_of(a) / norm_of(b);
}

}  // namespace

TEST_CASE("a model with merged rows gives what the adapted one gives") {
  const language_model adapted_one = rough_model(rough_shape(), storage_type::f32, three_ranks);
  language_model merged(rough_shape(), storage_type::f32);
  load_weights(merged, all_of(adapted_one));
  const packed_batch batch = three_sequences();
  CHECK_THAT(weighted(merged, batch), WithinRel(weighted(adapted_one, batch), 1e-5));
  CHECK(std::abs(weighted(merged, batch) -
                 weighted(rough_model(rough_shape(), storage_type::f32), batch)) > 0.01);
}

TEST_CASE("without its adapters a model gives what it gave before") {
  const storage_type storage = GENERATE(storage_type::f32, storage_type::bf16);
  const language_model model = rough_model(rough_shape(), storage, three_ranks);
  workers on{2};
  const packed_batch batch = three_sequences();
  scoring_pass without(storage), plain(storage), with(storage);
  const auto a = without.score(model, batch, purpose::evaluation, on, false);
  const auto b = plain.score(rough_model(rough_shape(), storage), batch, purpose::evaluation, on);
  CHECK(std::ranges::equal(a, b));
  CHECK_FALSE(std::ranges::equal(a, with.score(model, batch, purpose::evaluation, on)));
}

TEST_CASE("log-probabilities of sequences are the sums of their tokens'") {
  const language_model model = rough_model(rough_shape(), storage_type::f32);
  workers on{2};
  scoring_pass pass(storage_type::f32);
  const auto sums = pass.score(model, three_sequences(), purpose::evaluation, on);
  const auto tokens = pass.tokens();
  REQUIRE(tokens.size() == 12);
  CHECK_THAT(double{tokens[0]} + tokens[1] + tokens[2] + tokens[3], WithinRel(sums[0], 1e-6));
  CHECK_THAT(double{tokens[4]} + tokens[5], WithinRel(sums[1], 1e-6));
}

TEST_CASE("the gradient of weighted log-probabilities agrees with finite differences") {
  const lora_settings lora = GENERATE(lora_settings{}, three_ranks, head_too);
  const bool tied = !lora.head && GENERATE(true, false);
  CAPTURE(lora.rank, tied);
  const language_model model = rough_model(rough_shape(tied), storage_type::f32, lora);
  const packed_batch batch = three_sequences();
  const std::vector<float> gradient = gradient_of(model, batch);
  const double length = norm_of(gradient);
  CHECK(length > 0.5);
  CHECK_THAT(slope_along(model, gradient, batch) / length, WithinRel(length, 1e-2));
  double largest = 0;
  for (const std::uint64_t seed : {11U, 12U, 13U, 14U}) {
    const std::vector<float> direction = rough_weights(gradient.size(), seed);
    const double expected = dot(gradient, direction);
    largest = std::max(largest, std::abs(expected));
    CHECK_THAT(slope_along(model, direction, batch), WithinAbs(expected, 1e-2 * length));
  }
  CHECK(largest > 0.1 * length);  // else no direction would tell a gradient from another
}

TEST_CASE("the gradient of a bf16 model is that of fp32 but for rounding") {
  const lora_settings lora = GENERATE(lora_settings{}, three_ranks, head_too);
  const packed_batch batch = three_sequences();
  language_model wide = rough_model(rough_shape(), storage_type::f32, lora);
  load_weights(wide, rounded_to_bf16(rough_weights(parameter_count(rough_shape()), 7)));
  if (lora.rank > 0) {
    std::ranges::copy(rounded_to_bf16(rough_weights(wide.trained().size(), 8)),
                      wide.trained().begin());
  }
  const std::vector<float> expected = gradient_of(wide, batch);
  const language_model stored = rough_model(rough_shape(), storage_type::bf16, lora);
  const double distance = relative_distance(gradient_of(stored, batch), expected);
  CHECK(distance < 0.03);
  CHECK(distance > 1e-6);
}

TEST_CASE("gradients are added to what is there") {
  const language_model model = rough_model(rough_shape(), storage_type::f32);
  const packed_batch batch = three_sequences();
  std::vector<float> once = gradient_of(model, batch), twice(once.size());
  workers on{2};
  scoring_pass pass(storage_type::f32);
  for (int i = 0; i < 2; ++i) {
    pass.score(model, batch, purpose::training, on);
    pass.add_gradient(model, batch, some_coefficients, twice, on);
  }
  for (float& x : once) x *= 2;
  CHECK(relative_distance(twice, once) < 1e-6);
}

TEST_CASE("neither what is computed again nor threads change a bit of the gradient") {
  const storage_type storage = GENERATE(storage_type::f32, storage_type::bf16);
  const lora_settings lora = GENERATE(lora_settings{}, three_ranks, head_too);
  const language_model model = rough_model(rough_shape(), storage, lora);
  const packed_batch batch = three_sequences();
  const std::vector<float> one = gradient_of(model, batch, purpose::training, 1);
  CHECK(gradient_of(model, batch, purpose::training, 3) == one);
  CHECK(gradient_of(model, batch, purpose::training_with_less_memory, 3) == one);
}

TEST_CASE("a pass holds what was told beforehand") {
  const storage_type storage = GENERATE(storage_type::f32, storage_type::bf16);
  const lora_settings lora = GENERATE(lora_settings{}, three_ranks, head_too);
  const purpose why =
      GENERATE(purpose::evaluation, purpose::training, purpose::training_with_less_memory);
  const language_model model = rough_model(rough_shape(), storage, lora);
  const packed_batch batch = three_sequences();
  workers on{2};
  scoring_pass pass(storage);
  pass.score(model, batch, why, on);
  std::vector<float> gradient(model.trained().size());
  if (why != purpose::evaluation) {
    pass.add_gradient(model, batch, some_coefficients, gradient, on);
  }
  CHECK(pass.bytes() == scoring_pass::bytes(model, batch.inputs.size(), batch.targets.size(), why));
}
