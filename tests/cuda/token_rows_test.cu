// Options of single rows on the device: masks of every type, temperatures, padding, one coefficient
// out of place; and what only a device has to say about them.
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "catch.hpp"
#include "cpu/token_rows.hpp"
#include "cuda/token_cases.hpp"
#include "random.hpp"

namespace {

namespace gpu = prospect::cuda;
using prospect::bfloat16;
using prospect::float16;
using prospect::ignored_target;
using prospect::token_options;
using testing::device_array;
using testing::device_matrix;
using testing::device_results;
using testing::device_targets;
using testing::logits_matrix;
using testing::on_cuda;
using testing::random_source;
using testing::require_success;
using testing::row_kind;
using testing::same_bits;

template <class S>
constexpr std::int64_t tile = gpu::detail::tile_columns<S>;

}  // namespace

TEMPLATE_TEST_CASE("a mask is a target of -100 on the device, to the bit", "", float, bfloat16,
                   float16) {
  random_source random{811};
  CAPTURE(random.seed());
  // The last one so long that seven rows are split over blocks.
  for (const std::int64_t vocabulary : {std::int64_t{5}, tile<TestType> + 3}) {
    testing::check_masks<TestType>(on_cuda, vocabulary, random);
  }
  testing::check_masks<float>(on_cuda, 9 * tile<float> + 1, random);
}

TEMPLATE_TEST_CASE("a row's own temperature gives the bits of a batch of that temperature", "",
                   float, bfloat16, float16) {
  random_source random{812};
  CAPTURE(random.seed());
  testing::check_temperatures<TestType>(on_cuda, 67, {}, random);
  testing::check_temperatures<TestType>(on_cuda, 67, {.temperature = 2}, random);
  testing::check_temperatures<TestType>(on_cuda, tile<TestType> + 3, {.soft_cap = 30}, random);
  testing::check_temperatures<TestType>(on_cuda, tile<TestType> + 3, {}, random);
}

TEMPLATE_TEST_CASE("padding becomes 0 on the device where that is asked for", "", float, bfloat16,
                   float16) {
  random_source random{813};
  CAPTURE(random.seed());
  testing::check_padding<TestType>(on_cuda, 5, 3, random);
  testing::check_padding<TestType>(on_cuda, 1, 300, random);
  testing::check_padding<TestType>(on_cuda, 2 * tile<TestType> + 1, 61, random);
  testing::check_padding<TestType>(on_cuda, 67, 0, random);
}

TEMPLATE_TEST_CASE("one coefficient out of place on the device", "", float, bfloat16, float16) {
  random_source random{814};
  CAPTURE(random.seed());
  for (const std::int64_t vocabulary : {std::int64_t{2}, tile<TestType> + 3}) {
    testing::check_one_coefficient<TestType>(on_cuda, vocabulary, random);
  }
}

TEMPLATE_TEST_CASE("masks of every type on the device", "", std::uint8_t, std::int32_t, float) {
  random_source random{815};
  logits_matrix<float> logits{4, 33};
  for (std::int64_t t = 0; t < 4; ++t) fill(logits, t, row_kind::ordinary, 7, random);
  const auto want = on_cuda.forward(logits, {ignored_target, 7, 7, ignored_target}, {});
  const device_matrix<float> d{logits};
  const device_targets y{{99, 7, 7, -5}};
  const std::vector<TestType> marks{0, 1, TestType(200), 0};
  const device_array<TestType> mask{marks};
  const device_results r{4};
  require_success(
      gpu::token_log_probs<float>(d.view(), y, r.out(), {.mask = mask.input()}, {}, nullptr));
  testing::synchronise();
  CHECK(testing::same_outputs(r.host(), want));

  // The combined partials of masked rows, too.
  const device_array<prospect::vocabulary_partial> partials(4);
  require_success(gpu::vocabulary_partials<float>(d.view(), y, partials.row(),
                                                  {.mask = mask.input()}, true, {}, nullptr));
  const device_results combined{4};
  require_success(
      gpu::token_log_probs({partials.data(), 1, 4}, y, combined.out(), mask.input(), nullptr));
  testing::synchronise();
  CHECK(same_bits(combined.host().log_prob, want.log_prob));
}

TEST_CASE("a temperature that is none makes its row NaN and no other") {
  random_source random{816};
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const std::int64_t vocabulary : {std::int64_t{33}, 9 * tile<float> + 1}) {
    logits_matrix<float> logits{6, vocabulary};
    for (std::int64_t t = 0; t < 6; ++t) fill(logits, t, row_kind::ordinary, 7, random);
    const std::vector<std::int64_t> targets{7, 7, 7, 7, ignored_target, 7};
    const std::vector<float> own{1, nan, 0, -1, nan, 1e31F};
    const std::vector<float> one(6, 1.0F);
    auto clean = on_cuda.forward(logits, targets, {});
    testing::whole_way<float> got{on_cuda, logits, targets, one, {.inverse_temperatures = own}};
    CHECK(testing::same_output(got.pass, clean, 0));
    CHECK(got.pass.log_prob[4] == 0);
    for (const std::size_t t : {1, 2, 3, 5}) {
      CAPTURE(t);
      CHECK(std::isnan(got.pass.log_prob[t]));
      CHECK(std::isnan(got.deferred_pass.lse[t]));
      CHECK(std::isnan(finish(got.partials[t]).log_prob));
      for (auto* gradient : {&got.gradient, &got.in_place, &got.deferred}) {
        for (std::int64_t j = 0; j < vocabulary; ++j) {
          REQUIRE(std::isnan(gradient->at(static_cast<std::int64_t>(t), j)));
        }
      }
    }
  }
}
