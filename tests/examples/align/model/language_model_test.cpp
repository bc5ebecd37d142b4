// What a model holds and gives back, in every way of storing and training it.
#include "model/language_model.hpp"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>
#include <vector>

#include "catch.hpp"
#include "rough_model.hpp"

using namespace align;

namespace {

const lora_settings rank_three{.rank = 3, .alpha = 4};
const lora_settings three_and_head{.rank = 3, .alpha = 4, .head = true};

std::span<const float> adapter_named(const language_model& model, const std::string& name) {
  for (const weight_place& place : adapters_of(model.shape(), model.lora())) {
    if (place.name == name) return model.trained().subspan(place.offset, place.size());
  }
  FAIL("there is no adapter " + name);
  return {};
}

// Of the values as they are read by products.
std::vector<float> read_by_products(const language_model& model) {
  return model.visit([]<class W>(const model_view<W>& view) {
    const std::span<const W> from = view.adapters.empty() ? view.parameters : view.adapters;
    std::vector<float> values;
    for (const W x : from) values.push_back(static_cast<float>(x));
    return values;
  });
}

}  // namespace

TEST_CASE("what was loaded is read again, as it is stored") {
  const bool tied = GENERATE(true, false);
  const std::vector<float> weights = rough_weights(parameter_count(rough_shape(tied)), 7);
  CHECK(all_of(rough_model(rough_shape(tied), storage_type::f32)) == weights);
  // Adapters that add nothing; and with them bf16 is all there is.
  for (const storage_type storage : {storage_type::f32, storage_type::bf16}) {
    language_model model(rough_shape(tied), storage, rank_three);
    load_weights(model, weights);
    CHECK(all_of(model) == (storage == storage_type::f32 ? weights : rounded_to_bf16(weights)));
  }
}

TEST_CASE("bf16 is what products read; what the optimiser changes is kept in fp32") {
  const language_model model = rough_model(rough_shape(), storage_type::bf16);
  const std::vector<float> weights = rough_weights(parameter_count(rough_shape()), 7);
  CHECK(all_of(model) == weights);
  CHECK(read_by_products(model) == rounded_to_bf16(weights));
}

TEST_CASE("rows of an adapted matrix are read with alpha / rank B A added") {
  const storage_type storage = GENERATE(storage_type::f32, storage_type::bf16);
  const lora_settings lora = GENERATE(rank_three, three_and_head);
  const language_model model = rough_model(rough_shape(), storage, lora);
  std::vector<float> weights = rough_weights(parameter_count(rough_shape()), 7);
  if (storage == storage_type::bf16) weights = rounded_to_bf16(std::move(weights));
  std::size_t adapted_ones = 0;
  for (const weight_place& place : weights_of(model.shape())) {
    CAPTURE(place.name);
    const auto rows = static_cast<std::size_t>(place.rows);
    const auto columns = static_cast<std::size_t>(place.columns);
    std::vector<double> expected(
        weights.begin() + static_cast<std::ptrdiff_t>(place.offset),
        weights.begin() + static_cast<std::ptrdiff_t>(place.offset + place.size()));
    const bool of_block =
        place.name.starts_with("blk.") && place.name.find("norm") == std::string::npos;
    if (of_block || (lora.head && place.name == "output.weight")) {
      ++adapted_ones;
      const std::string stem = place.name.substr(0, place.name.size() - 7);  // ".weight"
      const auto a = adapter_named(model, stem + ".lora_a");
      const auto b = adapter_named(model, stem + ".lora_b");
      REQUIRE(a.size() == 3 * columns);
      REQUIRE(b.size() == 3 * rows);
      for (std::size_t i = 0; i < rows; ++i) {
        for (std::size_t j = 0; j < columns; ++j) {
          for (std::size_t k = 0; k < 3; ++k) {
            expected[i * columns + j] +=
                4.0 / 3 * double{b[i * 3 + k]} * double{a[k * columns + j]};
          }
        }
      }
    }
    // All of it, and what begins in the middle.
    for (const std::size_t first : {std::size_t{0}, rows / 2, rows - 1}) {
      std::vector<float> found((rows - first) * columns);
      model.read(place, first, found);
      for (std::size_t i = 0; i < found.size(); ++i) {
        REQUIRE_THAT(found[i], WithinAbs(expected[first * columns + i], 1e-6));
      }
    }
  }
  CHECK(adapted_ones == 2 * 7 + (lora.head ? 1 : 0));
}

TEST_CASE("a part that is renewed is read by products, and no other") {
  const lora_settings lora = GENERATE(lora_settings{}, rank_three);
  language_model model = rough_model(rough_shape(), storage_type::bf16, lora);
  std::vector<float> expected = read_by_products(model);
  for (const std::size_t i : {9U, 10U, 19U, 20U}) model.trained()[i] = 3;
  CHECK(read_by_products(model) == expected);
  model.renew(10, 20);
  expected[10] = expected[19] = 3;
  CHECK(read_by_products(model) == expected);
  model.renew();
  expected[9] = expected[20] = 3;
  CHECK(read_by_products(model) == expected);
}

TEST_CASE("another weight gives another fingerprint, and another adapter does not") {
  const storage_type storage = GENERATE(storage_type::f32, storage_type::bf16);
  std::vector<float> weights = rough_weights(parameter_count(rough_shape()), 7);
  const std::string one = rough_model(rough_shape(), storage).fingerprint();
  CHECK(one.size() == 64);
  CHECK(rough_model(rough_shape(), storage, rank_three).fingerprint() == one);
  for (const std::size_t at : {std::size_t{0}, weights.size() / 2, weights.size() - 1}) {
    for (const lora_settings& lora : {lora_settings{}, rank_three}) {
      std::vector<float> other = weights;
      other[at] += 0.25F;
      language_model model(rough_shape(), storage, lora);
      load_weights(model, other);
      CHECK(model.fingerprint() != one);
    }
  }
}

TEST_CASE("what is no model is refused") {
  model_shape shape = rough_shape();
  CHECK_THROWS_AS(language_model(shape, storage_type::f32, {.rank = -1}), std::invalid_argument);
  CHECK_THROWS_AS(language_model(shape, storage_type::f32, {.head = true}), std::invalid_argument);
  CHECK_THROWS_AS(language_model(rough_shape(true), storage_type::f32, three_and_head),
                  std::invalid_argument);
  shape.heads = 3;
  CHECK_THROWS_AS(language_model(shape, storage_type::f32), std::invalid_argument);
}

TEST_CASE("the bytes of a model are those of its rows of numbers") {
  const std::size_t all = parameter_count(rough_shape());
  const std::size_t few = adapter_count(rough_shape(), rank_three);
  const auto bytes = [](storage_type storage, const lora_settings& lora) {
    return language_model(rough_shape(), storage, lora).bytes();
  };
  CHECK(bytes(storage_type::f32, {}) == 4 * all);
  CHECK(bytes(storage_type::bf16, {}) == 6 * all);
  CHECK(bytes(storage_type::f32, rank_three) == 4 * all + 4 * few);
  CHECK(bytes(storage_type::bf16, rank_three) == 2 * all + 6 * few);
}

TEST_CASE("the initial state depends on the seed and on nothing else") {
  const auto started = [](std::uint64_t seed) {
    language_model model(rough_shape(), storage_type::f32);
    initialise(model, seed);
    return all_of(model);
  };
  CHECK(started(3) == started(3));
  CHECK(started(3) != started(4));
}

TEST_CASE("the initial state is GPT-2's: small normal weights, smaller into the stream, gains 1") {
  const model_shape shape{.vocabulary = 300,
                          .context = 50,
                          .width = 32,
                          .layers = 2,
                          .heads = 2,
                          .key_value_heads = 2,
                          .head_width = 16,
                          .feed_forward = 96,
                          .tied_head = false};
  language_model model(shape, storage_type::f32);
  initialise(model, 1);
  for (const weight_place& place : weights_of(shape)) {
    CAPTURE(place.name);
    std::vector<float> values(place.size());
    model.read(place, 0, values);
    if (place.name.ends_with("norm.weight")) {
      CHECK(std::ranges::all_of(values, [](float x) { return x == 1; }));
      continue;
    }
    double sum = 0;
    for (const float x : values) sum += x;
    const auto count = static_cast<double>(values.size());
    const bool into_stream =
        place.name.ends_with("attn_output.weight") || place.name.ends_with("ffn_down.weight");
    // Two layers add to the stream four times.
    CHECK_THAT(norm_of(values) / std::sqrt(count), WithinRel(into_stream ? 0.01 : 0.02, 0.1));
    CHECK_THAT(sum / count, WithinAbs(0, 0.002));
  }
}

TEST_CASE("adapters start as PyTorch's linear layers and zeros, and change no bit of the model") {
  const storage_type storage = GENERATE(storage_type::f32, storage_type::bf16);
  language_model model = rough_model(rough_shape(), storage, rank_three);
  initialise_adapters(model, 5);
  double squares = 0, count = 0;
  for (const weight_place& place : adapters_of(model.shape(), rank_three)) {
    const bool down = place.name.ends_with("lora_a");
    for (const float x : adapter_named(model, place.name)) {
      if (down) {
        // Uniform between -1 and 1 has a variance of a third.
        const double relative = x * std::sqrt(place.columns);
        REQUIRE(std::abs(relative) <= 1.000001);
        squares += relative * relative;
        ++count;
      } else {
        REQUIRE(x == 0);
      }
    }
  }
  CHECK_THAT(squares / count, WithinAbs(1.0 / 3, 0.05));

  workers on{2};
  const packed_batch batch = three_sequences();
  scoring_pass with(storage), without(storage), plain(storage);
  const auto a = with.score(model, batch, purpose::evaluation, on);
  const auto b = without.score(model, batch, purpose::evaluation, on, false);
  const auto c = plain.score(rough_model(rough_shape(), storage), batch, purpose::evaluation, on);
  CHECK(std::ranges::equal(a, b));
  if (storage == storage_type::f32) {
    CHECK(std::ranges::equal(a, c));
  } else {
    for (std::size_t i = 0; i < 3; ++i) CHECK_THAT(a[i], WithinRel(c[i], 1e-6));
  }
  language_model other = rough_model(rough_shape(), storage, rank_three);
  initialise_adapters(other, 6);
  CHECK_FALSE(std::ranges::equal(other.trained(), model.trained()));
}

TEST_CASE("a model that computes otherwise from the same weights has another fingerprint") {
  const model_shape shape = rough_shape();
  const auto of = [](const model_shape& s) {
    return language_model(s, storage_type::f32).fingerprint();
  };
  std::vector<model_shape> others(5, shape);
  others[0].norm_epsilon *= 3;
  others[1].rope_base *= 2;
  others[2].rope_divisors.assign(static_cast<std::size_t>(shape.head_width) / 2, 2.0F);
  others[3].context += 1;
  others[4].key_value_heads = 1;
  for (std::size_t i = 0; i < 4; ++i) CHECK(of(others[i]) != of(shape));
  CHECK(described(others[4]) != described(shape));
}
