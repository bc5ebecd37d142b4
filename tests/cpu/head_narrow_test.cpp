// The head path with a GEMM that takes operands of 16 bits: the same answers, to what bf16 leaves
// of gradients of logits where those are rounded, and to fp32's where they are not.

#include <prospect/cpu/head.hpp>

#include <cmath>
#include <cstdint>
#include <vector>

#include "catch.hpp"
#include "closeness.hpp"
#include "cpu/head_cases.hpp"
#include "cpu/head_checks.hpp"
#include "cpu/narrow_gemm.hpp"
#include "executors.hpp"
#include "random.hpp"

namespace {

using namespace testing;
using prospect::cpu::head_gradient;
using prospect::cpu::head_log_probs;
using prospect::cpu::head_log_probs_and_gradient;
using prospect::cpu::narrow_products;

const std::vector<head_shape> narrow_shapes{{9, 7, 5},           {33, 7, 17000},   {300, 64, 2500},
                                            {40, 520, 1100, 16}, {33, 7, 2500, 3}, {1, 1, 1}};

/// How far off sums over tokens are, normwise, by what their products are of.
double sums_tolerance(narrow_products which) {
  return which == narrow_products::all ? 4e-3 : sum_tolerance<float>;
}

}  // namespace

TEST_CASE("every schedule of the head path, multiplied in bf16, in every workspace",
          "[head][narrow]") {
  random_source random{781};
  CAPTURE(random.seed());
  // What is wide by Eigen is every other test's.
  for (const bool by_onednn : whose_gemms()) {
    for (const auto which :
         {by_onednn ? narrow_products::none : narrow_products::of_logits, narrow_products::all}) {
      CAPTURE(by_onednn, which);
      const testing::narrow_gemm multiply{which, by_onednn};
      check_shapes<bfloat16>(random, narrow_shapes, multiply, sums_tolerance(which));
      CHECK((multiply.narrowed > 0) == (which != narrow_products::none));
      // Of an adapter what is small stays wide.
      CHECK(multiply.wide > 0);
    }
  }
}

TEST_CASE("gradients of logits stay wide in fp16, whose range is too small", "[head][narrow]") {
  random_source random{782};
  CAPTURE(random.seed());
  head_case<float16> c{random, {48, 16, 1100}, true};
  for (auto& x : c.d_token) x *= 1e-6F;
  const head_answer want{c};
  for (const head_schedule schedule : trained_schedules) {
    CAPTURE(schedule);
    const testing::narrow_gemm multiply{narrow_products::all, false};
    head_results<float16> r{c.shape};
    run(c, r, schedule, r.gradients(), multiply);
    CHECK(testing::distance(r.weight.elements(), want.d_weight) <= sum_tolerance<float>);
    CHECK(multiply.narrowed > 0);
    CHECK(multiply.wide > 0);
  }
}

TEST_CASE("no executor and no workspace shows in a head multiplied in bf16",
          "[head][narrow][invariance]") {
  random_source random{783};
  CAPTURE(random.seed());
  head_case<bfloat16> c{random, {70, 520, 2100, 5}, true, {.temperature = 0.9}};
  for (const bool by_onednn : whose_gemms()) {
    for (const auto which : {narrow_products::of_logits, narrow_products::all}) {
      const testing::narrow_gemm multiply{which, by_onednn};
      const std::int64_t least = least_bytes(c, true, multiply);
      const auto run = [&](std::int64_t bytes, auto& on) {
        head_workspace<float> workspace{bytes};
        head_results<bfloat16> r{c.shape};
        head_log_probs_and_gradient(c.hidden.view(), c.head(), c.targets, r.scores(),
                                    r.hidden.view(), workspace, c.options, multiply, on);
        const head_ticket ticket = head_log_probs(c.hidden.view(), c.head(), c.targets, r.scores(),
                                                  workspace, true, c.options, multiply, on);
        auto of_both = r.gradients();
        of_both.hidden = {};
        head_gradient(c.hidden.view(), c.head(), c.targets, r.log_prob, r.lse, c.d_token, of_both,
                      ticket, workspace, c.options, multiply, on);
        return r;
      };
      prospect::serial_executor serial;
      auto want = run(plenty, serial);
      CAPTURE(by_onednn, which);
      testing::with_each_executor([&](const std::string& name, auto& on) {
        CAPTURE(name);
        CHECK(run(plenty, on).same_as(want));
      });
      // Sums over tokens depend on the chunks, log-probs and the frozen gradient do not.
      auto little = run(least, serial);
      CHECK(same_bits(little.log_prob, want.log_prob));
      CHECK(same_bits(little.lse, want.lse));
      CHECK(same_bits(little.hidden.elements(), want.hidden.elements()));
    }
  }
}

TEST_CASE("a token multiplied in bf16 is the same bits alone and in any batch",
          "[head][narrow][invariance]") {
  random_source random{784};
  CAPTURE(random.seed());
  for (const head_shape shape :
       {head_shape{30, 7, 5}, head_shape{70, 64, 961}, head_shape{21, 700, 130},
        head_shape{600, 96, 1100}, head_shape{40, 64, 2100, 16}, head_shape{21, 1, 3, 1}}) {
    for (const bool by_onednn : whose_gemms()) {
      const testing::narrow_gemm multiply{narrow_products::all, by_onednn};
      CAPTURE(shape.tokens, shape.width, shape.vocabulary, shape.rank, by_onednn);
      head_case<bfloat16> c{random, shape, true};
      head_workspace<float> workspace{plenty};
      prospect::serial_executor on;
      head_results<bfloat16> together{shape};
      head_log_probs_and_gradient(c.hidden.view(), c.head(), c.targets, together.scores(),
                                  together.hidden.view(), workspace, {}, multiply, on);
      std::int64_t different = 0;
      for (std::int64_t first = 0; first < shape.tokens;) {
        const std::int64_t n = std::min(shape.tokens - first, random.integer(1, 37));
        const prospect::matrix_view<const bfloat16> part{c.hidden.view().row(first), n, shape.width,
                                                         c.hidden.view().pitch};
        const std::vector<std::int64_t> targets(c.targets.begin() + first,
                                                c.targets.begin() + first + n);
        head_results<bfloat16> alone{{n, shape.width, shape.vocabulary, shape.rank}};
        head_log_probs_and_gradient(part, c.head(), targets, alone.scores(), alone.hidden.view(),
                                    workspace, {}, multiply, on);
        for (std::int64_t t = 0; t < n; ++t) {
          const auto i = static_cast<std::size_t>(t), j = static_cast<std::size_t>(first + t);
          different += same_bits(alone.log_prob[i], together.log_prob[j]) ? 0 : 1;
          different += same_bits(alone.lse[i], together.lse[j]) ? 0 : 1;
          for (std::int64_t k = 0; k < shape.width; ++k) {
            different += same_bits(alone.hidden.at(t, k), together.hidden.at(first + t, k)) ? 0 : 1;
          }
        }
        first += n;
      }
      CHECK(different == 0);
    }
  }
}

TEST_CASE("very small coefficients lose nothing on their way through bf16", "[head][narrow]") {
  random_source random{785};
  CAPTURE(random.seed());
  head_case<bfloat16> c{random, {48, 16, 1100, 3}, true, {.temperature = 2}};
  const head_answer ordinary{c};
  for (const bool by_onednn : whose_gemms()) {
    const testing::narrow_gemm multiply{narrow_products::all, by_onednn};
    for (const head_schedule schedule : trained_schedules) {
      CAPTURE(by_onednn, schedule);
      // Gradients down to 2^-20 of it: below the smallest normal number, and above it once summed.
      head_case<bfloat16> small = c;
      for (auto& x : small.d_token) x = std::ldexp(x, -110);
      head_results<bfloat16> r{c.shape};
      run(small, r, schedule, r.gradients(), multiply);
      std::vector<double> got;
      for (const float x : r.weight.elements()) {
        got.push_back(std::ldexp(static_cast<double>(x), 110));
      }
      CHECK(testing::distance(got, ordinary.d_weight) <= 4e-3);
    }
  }
}

TEST_CASE("a ticket serves a GEMM that multiplies in other types", "[head][narrow][ticket]") {
  random_source random{786};
  CAPTURE(random.seed());
  head_case<bfloat16> c{random, {48, 64, 2500, 3}, true};
  const head_answer want{c};
  const narrow_products all[] = {narrow_products::none, narrow_products::of_logits,
                                 narrow_products::all};
  prospect::serial_executor on;
  for (const auto first : all) {
    for (const auto then : all) {
      const testing::narrow_gemm before{first, false}, after{then, false};
      const std::int64_t least = least_bytes(c, false, before);
      for (const std::int64_t bytes : {least, 3 * least / 2, 3 * least, plenty}) {
        CAPTURE(first, then, bytes);
        head_results<bfloat16> r{c.shape};
        head_workspace<float> workspace{bytes};
        const head_ticket ticket = head_log_probs(c.hidden.view(), c.head(), c.targets, r.scores(),
                                                  workspace, true, c.options, before, on);
        // What another GEMM needs at least is its own.
        if (bytes < least_bytes(c, false, after)) continue;
        head_gradient(c.hidden.view(), c.head(), c.targets, r.log_prob, r.lse, c.d_token,
                      r.gradients(), ticket, workspace, c.options, after, on);
        check_gradients(c, r, want, sums_tolerance(then));
      }
    }
  }
}

TEST_CASE("where rows of the weight have a mean, rounded gradients of logits show it",
          "[head][narrow]") {
  random_source random{787};
  CAPTURE(random.seed());
  head_case<bfloat16> c{random, {64, 64, 3000}, false, {}, 0};
  for (std::int64_t v = 0; v < 3000; ++v) {
    c.weight.fill_row(v, [&](std::int64_t) { return 4 + random.normal(0.1); });
  }
  const head_answer want{c};
  for (const head_schedule schedule : trained_schedules) {
    CAPTURE(schedule);
    head_results<bfloat16> rounded{c.shape}, wide{c.shape};
    run(c, rounded, schedule, rounded.gradients(),
        testing::narrow_gemm{narrow_products::all, false});
    run(c, wide, schedule, wide.gradients(),
        testing::narrow_gemm{narrow_products::of_logits, false});
    CHECK(testing::distance(wide.hidden.elements(), want.d_hidden) <= 4e-3);
    // The mean, 40 times as large as what is left of it, times what rounding adds to a sum of 0.
    const double off = testing::distance(rounded.hidden.elements(), want.d_hidden);
    CHECK(off > 4e-3);
    CHECK(off <= 0.09);
  }
}

TEST_CASE("a NaN of any payload stays one when gradients are rounded", "[head][narrow]") {
  random_source random{788};
  head_case<bfloat16> c{random, {24, 16, 40}, false, {}, 0};
  head_results<bfloat16> r{c.shape};
  const testing::narrow_gemm multiply{narrow_products::all, false};
  run(c, r, head_schedule::recomputed, r.gradients(), multiply);
  r.log_prob[0] = __builtin_bit_cast(float, 0x7fffffffU);
  c.d_token[0] = 1;
  head_workspace<float> workspace{plenty};
  prospect::serial_executor on;
  head_gradient(c.hidden.view(), c.head(), c.targets, r.log_prob, r.lse, c.d_token, r.gradients(),
                {}, workspace, c.options, multiply, on);
  for (std::int64_t k = 0; k < 16; ++k) CHECK(std::isnan(prospect::load(r.hidden.at(0, k))));
}
