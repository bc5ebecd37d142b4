// The token kernels against the textbook softmax, within the numeric contract: every storage type,
// kind of row, option and size at which a word, a tile or a cluster ends; both schedules.
#include <cstdint>
#include <limits>
#include <vector>

#include "catch.hpp"
#include "cuda/token_cases.hpp"
#include "random.hpp"
#include "special_numbers.hpp"

namespace {

using prospect::bfloat16;
using prospect::float16;
using prospect::ignored_target;
using prospect::token_options;
using testing::infinity;
using testing::logits_matrix;
using testing::not_a_number;
using testing::on_cuda;
using testing::random_source;
using testing::row_kind;
using testing::same_bits;
using testing::same_results;

/// Rows for a few targets, the label at either end and somewhere inside, and a row that must not be
/// read.
template <class S>
struct token_case {
  std::vector<std::int64_t> targets;
  logits_matrix<S> logits;

  token_case(std::int64_t vocabulary, row_kind kind, random_source& random)
      : targets{0, ignored_target, vocabulary - 1, random.integer(0, vocabulary - 1)},
        logits{4, vocabulary, random.integer(0, 9), random.integer(0, 7)} {
    for (std::int64_t t = 0; t < 4; ++t) {
      fill(logits, t, kind, targets[static_cast<std::size_t>(t)], random);
    }
    logits.fill_row(1, [](std::int64_t j) { return j % 2 == 0 ? not_a_number : infinity; });
  }
};

/// Both schedules give the same log-probs, and their gradient, to the bit.
template <class S>
void check_deferred(logits_matrix<S> logits, const std::vector<std::int64_t>& targets,
                    const token_options& options) {
  const auto kept = on_cuda.forward(logits, targets, options);
  const std::vector<float> minus_one(targets.size(), -1.0F);
  logits_matrix<S> in_place = logits;
  on_cuda.gradient(in_place, in_place, targets, kept, minus_one, minus_one, options);
  const auto deferred = on_cuda.deferred(logits, targets, options);
  CHECK(same_results(kept, deferred));
  CHECK(same_bits(in_place.elements(), logits.elements()));
  CHECK(logits.padding_untouched());
}

}  // namespace

TEMPLATE_TEST_CASE("every kind of row and option keeps its contract on the device", "", float,
                   bfloat16, float16) {
  random_source random{501};
  CAPTURE(random.seed());
  // The last two: what fp32 alone serves, and what goes through fp64.
  const std::vector<token_options> options{
      {}, {.temperature = 0.7}, {.soft_cap = 30}, {.temperature = 0.004}, {.temperature = 1e4}};
  for (const row_kind kind : testing::all_row_kinds) {
    for (const std::int64_t vocabulary : {1, 2, 7, 67, 1025}) {
      const auto& option = options[static_cast<std::size_t>(random.integer(0, 4))];
      CAPTURE(static_cast<int>(kind), vocabulary, option.temperature, option.soft_cap);
      token_case<TestType> c{vocabulary, kind, random};
      check_deferred(c.logits, c.targets, option);
      testing::check_everything(on_cuda, c.logits, c.targets, option, random);
    }
  }
}

TEMPLATE_TEST_CASE("tiles, blocks and clusters of any size", "", float, bfloat16, float16) {
  random_source random{502};
  CAPTURE(random.seed());
  constexpr std::int64_t tile = prospect::cuda::detail::tile_columns<TestType>;
  // One tile and its neighbours, some for one block, and so many that a cluster of two is needed.
  for (const std::int64_t vocabulary : {tile - 1, tile, tile + 1, 3 * tile + 8, 9 * tile - 3}) {
    CAPTURE(vocabulary);
    token_case<TestType> c{vocabulary, row_kind::ordinary, random};
    check_deferred(c.logits, c.targets, {});
    testing::check_everything(on_cuda, c.logits, c.targets, {}, random);
  }
}

TEST_CASE("rows that need a whole cluster, or more than fits one") {
  random_source random{503};
  CAPTURE(random.seed());
  constexpr std::int64_t tile = prospect::cuda::detail::tile_columns<float>;
  // On compute capability 8.0 both are read twice.
  std::vector<std::int64_t> sizes{33 * tile + 5};
  if (testing::full_size()) sizes = {33 * tile + 5, 128256, 151936, 262144, 400009};
  for (const std::int64_t vocabulary : sizes) {
    CAPTURE(vocabulary);
    token_case<float> c{vocabulary, row_kind::rising, random};
    check_deferred(c.logits, c.targets, {});
    testing::check_everything(on_cuda, c.logits, c.targets, {}, random);
  }
}

TEST_CASE("more tiles in each block of a cluster than the block has warps") {
  random_source random{504};
  CAPTURE(random.seed());
  using namespace prospect::cuda::detail;
  const std::int64_t vocabulary = (8 * warps + 1) * tile_columns<float> + 5;
  logits_matrix<float> logits{1, vocabulary};
  fill(logits, 0, row_kind::ordinary, vocabulary - 1, random);
  check_deferred(logits, {vocabulary - 1}, {});
}

TEST_CASE("how the deferred schedule lays a row over blocks") {
  using prospect::cuda::detail::deferred_plan;
  using prospect::cuda::detail::tiles_of;
  constexpr int h100 = 227 * 1024;
  constexpr int a100 = 163 * 1024;
  const auto plan = [](std::int64_t columns, bool clusters, int memory) {
    return deferred_plan::of<bfloat16>(tiles_of<bfloat16>(columns), clusters, memory);
  };
  for (const std::int64_t columns : {1, 4096, 32000, 50257, 128256, 151936, 262144, 800000}) {
    CAPTURE(columns);
    const deferred_plan p = plan(columns, true, h100);
    CHECK(p.resident);
    CHECK(p.blocks_per_row * p.tiles_per_block >= tiles_of<bfloat16>(columns));
    CHECK(p.shared_memory <= h100);
  }
  CHECK(plan(32000, true, h100).blocks_per_row == 1);
  CHECK(plan(128256, true, h100).blocks_per_row == 4);
  CHECK(plan(151936, true, h100).blocks_per_row == 5);
  CHECK(plan(151936, true, h100).tiles_per_block == 8);
  CHECK(plan(50257, false, a100).resident);
  CHECK_FALSE(plan(128256, false, a100).resident);
  CHECK(plan(128256, false, a100).blocks_per_row == 1);
  CHECK_FALSE(plan(4000000, true, h100).resident);
}

TEST_CASE("a confident token keeps its digits on the device") {
  random_source random{504};
  CAPTURE(random.seed());
  for (const std::int64_t vocabulary : {2, 31, 1025}) {
    for (double rest = 1e-3; rest > 1e-13; rest /= 10) {
      CAPTURE(vocabulary, rest);
      const std::int64_t target = random.integer(0, vocabulary - 1);
      logits_matrix<float> logits{1, vocabulary};
      const double others = static_cast<double>(vocabulary - 1);
      const double confident = std::log(others * (1 - rest) / rest);
      logits.fill_row(
          0, [&](std::int64_t j) { return j == target ? confident : random.normal(0.01); });
      const auto want = oracle::softmax(logits.row(0), target);
      const auto pass = on_cuda.deferred(logits, {target}, {});
      CHECK(testing::near(pass.log_prob[0], want.log_prob, 4e-6L));
      CHECK(testing::near(logits.at(0, target), want.rest, 4e-6L));
    }
  }
}

TEMPLATE_TEST_CASE("NaN or +inf is that row's alone, and a target that is no token as well", "",
                   float, bfloat16, float16) {
  random_source random{505};
  CAPTURE(random.seed());
  for (const std::int64_t vocabulary : {9, 301}) {
    for (const double hostile : {not_a_number, infinity}) {
      for (const std::int64_t at : {std::int64_t{0}, vocabulary / 2, vocabulary - 1}) {
        CAPTURE(vocabulary, hostile, at);
        const std::int64_t y = vocabulary / 2;
        logits_matrix<TestType> logits{5, vocabulary};
        for (std::int64_t t = 0; t < 5; ++t) fill(logits, t, row_kind::ordinary, y, random);
        const auto clean = on_cuda.forward(logits, {y, y, y, y, y}, {});
        logits.at(1, at) = testing::stored<TestType>(hostile);
        const std::vector<std::int64_t> targets{y, y, vocabulary, -1, y};
        const auto pass = on_cuda.forward(logits, targets, {});
        for (const std::size_t t : {std::size_t{0}, std::size_t{4}}) {
          CHECK(same_bits(pass.log_prob[t], clean.log_prob[t]));
          CHECK(same_bits(pass.entropy[t], clean.entropy[t]));
        }
        for (std::size_t t = 1; t < 4; ++t) {
          CAPTURE(t);
          for (const auto* row : {&pass.log_prob, &pass.entropy, &pass.sum_squares}) {
            CHECK(std::isnan((*row)[t]));
          }
          CHECK(std::isnan(pass.lse[t]));
          CHECK(pass.argmax[t] == 0);
        }
        check_deferred(logits, targets, {});
        on_cuda.deferred(logits, targets, {});
        for (std::int64_t t = 0; t < 5; ++t) {
          for (std::int64_t j = 0; j < vocabulary; ++j) {
            REQUIRE(std::isnan(prospect::load(logits.at(t, j))) == (t > 0 && t < 4));
          }
        }
      }
    }
  }
}

TEST_CASE("coefficients that are zero or not a number") {
  random_source random{506};
  logits_matrix<float> logits{4, 70};
  for (std::int64_t t = 0; t < 4; ++t) fill(logits, t, row_kind::ordinary, 3, random);
  const std::vector<std::int64_t> targets{3, 3, 3, 70};
  auto pass = on_cuda.forward(logits, targets, {});
  logits.fill_row(0, [](std::int64_t) { return not_a_number; });  // must not be read
  const float nan = std::numeric_limits<float>::quiet_NaN();
  on_cuda.gradient(logits, logits, targets, pass, {0, nan, 1, 0}, {0, 1, nan, 0}, {});
  for (std::int64_t j = 0; j < 70; ++j) {
    CHECK(same_bits(logits.at(0, j), 0.0F));
    for (std::int64_t t = 1; t < 4; ++t) CHECK(std::isnan(logits.at(t, j)));
  }
}
