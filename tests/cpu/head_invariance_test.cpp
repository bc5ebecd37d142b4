// What must not show in the results of the head path: executors, chunks, neighbours.

#include <prospect/cpu/head.hpp>

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "catch.hpp"
#include "cpu/head_cases.hpp"
#include "cpu/head_checks.hpp"
#include "cpu/rows.hpp"
#include "executors.hpp"
#include "random.hpp"

namespace {

using namespace testing;
using namespace prospect::cpu;

}  // namespace

TEST_CASE("of few threads, each has work for two tiles; of many, there are as many as ever",
          "[head]") {
  for (const auto& [threads, tiles] :
       {std::pair{1, 2}, {2, 4}, {3, 8}, {4, 8}, {8, 16}, {99, 16}}) {
    CHECK(detail::tiles_for(threads) == tiles);
  }
  reversed_executor who_knows;
  CHECK(detail::tiles_for(prospect::threads_of(who_knows)) == 16);
  prospect::thread_pool two{2};
  CHECK(detail::tiles_for(prospect::threads_of(two)) == 4);
}

TEST_CASE("chunks that are not all tokens end where they did, however many threads there are",
          "[head][invariance]") {
  random_source random{703};
  CAPTURE(random.seed());
  // Five tiles at once leave room for some 600 of the scored rows, two for all.
  head_case<float> c{random, {1500, 16, 5000, 4}, true};
  const auto run = [&](bool keep, auto& on) {
    head_workspace<float> workspace{12 << 20};
    head_results<float> r{c.shape};
    const head_ticket ticket = head_log_probs(c.hidden.view(), c.head(), c.targets, r.scores(),
                                              workspace, keep, c.options, {}, on);
    head_gradient(c.hidden.view(), c.head(), c.targets, r.log_prob, r.lse, c.d_token, r.gradients(),
                  ticket, workspace, c.options, {}, on);
    return r;
  };
  const auto frozen = [&](auto& on) {
    head_workspace<float> workspace{12 << 20};
    head_results<float> r{c.shape};
    head_log_probs_and_gradient(c.hidden.view(), c.head(), c.targets, r.scores(), r.hidden.view(),
                                workspace, c.options, {}, on);
    return r;
  };
  prospect::serial_executor one;
  prospect::thread_pool eight{8};
  reversed_executor who_knows;
  for (const bool keep : {false, true}) {
    CAPTURE(keep);
    auto want = run(keep, one);
    CHECK(run(keep, eight).same_as(want));
    CHECK(run(keep, who_knows).same_as(want));
  }
  auto want = frozen(one);
  CHECK(frozen(eight).same_as(want));
  CHECK(frozen(who_knows).same_as(want));
}

TEMPLATE_TEST_CASE("no executor shows in what the head path leaves", "[head][invariance]", float,
                   bfloat16) {
  using R = compute_t<TestType>;
  random_source random{702};
  CAPTURE(random.seed());
  head_case<TestType> c{random, {40, 520, 2100, 5}, true, {.temperature = 0.9}};
  const auto offsets = any_offsets(random, 40, 6);
  const auto layout = sequence_layout::packed(offsets);
  for (const std::int64_t bytes : {least_bytes(c, false) * 2, plenty}) {
    CAPTURE(bytes);
    const auto run = [&](auto& on) {
      std::vector<head_results<TestType>> all;
      for (const bool keep : {false, true}) {
        head_workspace<R> workspace{bytes};
        auto& r = all.emplace_back(c.shape);
        const head_ticket ticket = head_log_probs(c.hidden.view(), c.head(), c.targets, r.scores(),
                                                  workspace, keep, c.options, {}, on);
        head_gradient(c.hidden.view(), c.head(), c.targets, r.log_prob, r.lse, c.d_token,
                      r.gradients(), ticket, workspace, c.options, {}, on);
      }
      head_workspace<R> workspace{plenty};
      auto& step = all.emplace_back(c.shape);
      REQUIRE(run_step(c, step, layout, 2, workspace, on));
      auto& frozen = all.emplace_back(c.shape);
      head_log_probs_and_gradient(c.hidden.view(), c.head(), c.targets, frozen.scores(),
                                  frozen.hidden.view(), workspace, c.options, {}, on);
      return all;
    };
    prospect::serial_executor serial;
    auto want = run(serial);
    testing::with_each_executor([&](const std::string& name, auto& on) {
      CAPTURE(name);
      auto got = run(on);
      for (std::size_t i = 0; i < want.size(); ++i) CHECK(got[i].same_as(want[i]));
    });
  }
}

TEMPLATE_TEST_CASE("a token's log-prob is the same bits alone and in any batch",
                   "[head][invariance]", float, double, bfloat16) {
  using R = compute_t<TestType>;
  random_source random{703};
  CAPTURE(random.seed());
  for (const head_shape shape :
       {head_shape{21, 1, 1}, head_shape{21, 1, 3}, head_shape{30, 7, 5}, head_shape{40, 64, 961},
        head_shape{21, 700, 130}, head_shape{21, 3, 1921}, head_shape{70, 4, 2},
        head_shape{70, 8, 3}, head_shape{70, 8, 963}, head_shape{70, 8, 1922},
        head_shape{21, 1, 3, 1}, head_shape{40, 64, 961, 1}, head_shape{70, 8, 963, 3},
        head_shape{40, 64, 2100, 16}, head_shape{21, 3, 40, 130}}) {
    CAPTURE(shape.width, shape.vocabulary, shape.rank);
    head_case<TestType> c{random, shape, true};
    head_workspace<R> workspace{plenty};
    head_results<TestType> together{shape};
    head_log_probs(c.hidden.view(), c.head(), c.targets, together.scores(), workspace);
    testing::logits_matrix<TestType> d_together{shape.tokens, shape.width, 0, 0};
    head_log_probs_and_gradient(c.hidden.view(), c.head(), c.targets, {}, d_together.view(),
                                workspace);
    for (std::int64_t first = 0; first < shape.tokens;) {
      const std::int64_t n = std::min(shape.tokens - first, random.integer(1, 17));
      const prospect::matrix_view<const TestType> part{c.hidden.view().row(first), n, shape.width,
                                                       c.hidden.view().pitch};
      const auto i = static_cast<std::size_t>(first), size = static_cast<std::size_t>(n);
      const std::vector<std::int64_t> targets(c.targets.begin() + first,
                                              c.targets.begin() + first + n);
      std::vector<R> log_prob(size, testing::poison<R>());
      std::vector<double> lse(size, testing::poison<double>());
      head_log_probs(part, c.head(), targets, {.log_prob = log_prob, .lse = lse}, workspace);
      for (std::size_t t = 0; t < size; ++t) {
        CAPTURE(first, t, n);
        CHECK(same_bits(log_prob[t], together.log_prob[i + t]));
        CHECK(same_bits(lse[t], together.lse[i + t]));
      }
      testing::logits_matrix<TestType> d_alone{n, shape.width, 0, 0};
      head_log_probs_and_gradient(part, c.head(), targets, {}, d_alone.view(), workspace);
      bool same = true;
      for (std::int64_t t = 0; t < n; ++t) {
        for (std::int64_t k = 0; k < shape.width; ++k) {
          same = same && same_bits(d_alone.at(t, k), d_together.at(first + t, k));
        }
      }
      CHECK(same);
      first += n;
    }
  }
}
