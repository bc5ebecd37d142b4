// The head path against the textbook: every schedule, for any workspace that is accepted, leaves
// the same log-probs and gradients.

#include <prospect/cpu/head.hpp>

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "catch.hpp"
#include "closeness.hpp"
#include "cpu/head_cases.hpp"
#include "cpu/head_checks.hpp"
#include "cpu/rows.hpp"
#include "random.hpp"

namespace {

using namespace testing;
using namespace prospect::cpu;

const std::vector<head_shape> shapes{{0, 7, 5},     {1, 1, 1},      {1, 64, 960},
                                     {9, 7, 5},     {9, 1, 2500},   {9, 64, 961},
                                     {300, 7, 960}, {33, 7, 17000}, {300, 64, 2500}};

}  // namespace

TEMPLATE_TEST_CASE("every schedule of the head path, in every workspace", "[head]", float, double,
                   bfloat16, float16) {
  random_source random{701};
  CAPTURE(random.seed());
  check_shapes<TestType>(random, shapes);
}

TEMPLATE_TEST_CASE("the frozen head follows logits that change by far over the vocabulary",
                   "[head]", float, double) {
  random_source random{707};
  CAPTURE(random.seed());
  const std::int64_t vocabulary = 6000;
  enum { rising, falling, late, confident };
  for (const int kind : {rising, falling, late, confident}) {
    CAPTURE(kind);
    head_case<TestType> c{random, {50, 24, vocabulary}, true};
    for (std::int64_t v = 0; v < vocabulary; ++v) {
      auto& bias = c.bias[static_cast<std::size_t>(v)];
      const double share = static_cast<double>(v) / static_cast<double>(vocabulary);
      if (kind == rising) bias += static_cast<TestType>(90 * share);
      if (kind == falling) bias -= static_cast<TestType>(90 * share);
      if (kind == late && v < 2100) bias = -std::numeric_limits<TestType>::infinity();
      if (kind == confident && v == 3000) bias += 25;
    }
    for (auto& target : c.targets) {
      if (target == ignored_target) continue;
      if (kind == confident) target = 3000;
      // Half of them at the only logit of their tile that counts.
      if (kind == late) target = target % 2 == 0 ? 7 : std::max<std::int64_t>(target, 2100);
    }
    if (kind == late) c.bias[7] = 0;
    const head_answer want{c};
    head_results<TestType> first{c.shape};
    for (const std::int64_t bytes : {least_bytes(c, false), 4 * least_bytes(c, false), plenty}) {
      CAPTURE(bytes);
      head_workspace<TestType> workspace{bytes};
      head_results<TestType> r{c.shape};
      head_log_probs_and_gradient(c.hidden.view(), c.head(), c.targets, r.scores(), r.hidden.view(),
                                  workspace);
      check_scores(c, r, want);
      check_hidden(c, r, want.d_hidden_unit, false);
      if (bytes == least_bytes(c, false)) first = r;
      CHECK(same_bits(r.hidden.elements(), first.hidden.elements()));
    }
  }
}

TEST_CASE("gradients of the head path are those of finite differences", "[head]") {
  random_source random{704};
  CAPTURE(random.seed());
  for (const head_variant& variant : variants) {
    head_case<double> c{random, {6, 3, 7, 2}, true, variant.options};
    head_workspace<double> workspace{plenty};
    head_results<double> r{c.shape};
    const auto loss = [&] {
      head_results<double> scores{c.shape};
      head_log_probs(c.hidden.view(), c.head(), c.targets, scores.scores(), workspace, false,
                     c.options);
      double sum = 0;
      for (std::size_t t = 0; t < c.targets.size(); ++t) {
        if (c.targets[t] != ignored_target) sum += c.d_token[t] * scores.log_prob[t];
      }
      return sum;
    };
    const head_ticket ticket = head_log_probs(c.hidden.view(), c.head(), c.targets, r.scores(),
                                              workspace, true, c.options);
    head_gradient(c.hidden.view(), c.head(), c.targets, r.log_prob, r.lse, c.d_token, r.gradients(),
                  ticket, workspace, c.options);
    const auto slope = [&](double& x) {
      const double here = x, h = 1e-5;
      x = here + h;
      const double above = loss();
      x = here - h;
      const double below = loss();
      x = here;
      return (above - below) / (2 * h);
    };
    for (std::int64_t k = 0; k < c.shape.width; ++k) {
      for (std::int64_t t = 0; t < c.shape.tokens; ++t) {
        if (c.targets[static_cast<std::size_t>(t)] == ignored_target) continue;
        CHECK(testing::near(r.hidden.at(t, k), slope(c.hidden.at(t, k)), 1e-7L, 1e-8L));
      }
      for (std::int64_t v = 0; v < c.shape.vocabulary; ++v) {
        CHECK(testing::near(r.weight.at(v, k), slope(c.weight.at(v, k)), 1e-7L, 1e-8L));
      }
    }
    for (std::int64_t i = 0; i < c.shape.rank; ++i) {
      for (std::int64_t k = 0; k < c.shape.width; ++k) {
        CHECK(testing::near(r.lora_a.at(i, k), slope(c.lora_a.at(i, k)), 1e-7L, 1e-8L));
      }
      for (std::int64_t v = 0; v < c.shape.vocabulary; ++v) {
        CHECK(testing::near(r.lora_b.at(v, i), slope(c.lora_b.at(v, i)), 1e-7L, 1e-8L));
      }
    }
    for (std::int64_t v = 0; v < c.shape.vocabulary; ++v) {
      CHECK(testing::near(r.bias[v], slope(c.bias[static_cast<std::size_t>(v)]), 1e-7L, 1e-8L));
    }
  }
}

TEST_CASE("a token that is NaN spoils no other token's numbers", "[head]") {
  random_source random{708};
  head_case<float> c{random, {24, 7, 1030}, false, {}, 0};
  const head_answer want{c};
  c.hidden.fill_row(5, [](std::int64_t) { return std::numeric_limits<double>::quiet_NaN(); });
  head_results<float> r{c.shape};
  head_workspace<float> workspace{plenty};
  const head_ticket ticket =
      head_log_probs(c.hidden.view(), c.head(), c.targets, r.scores(), workspace, true);
  head_gradient(c.hidden.view(), c.head(), c.targets, r.log_prob, r.lse, c.d_token, r.gradients(),
                ticket, workspace);
  for (std::int64_t t = 0; t < 24; ++t) {
    const auto i = static_cast<std::size_t>(t);
    CAPTURE(t);
    CHECK(std::isnan(r.log_prob[i]) == (t == 5));
    for (std::int64_t k = 0; k < 7; ++k) {
      if (t == 5) {
        CHECK(std::isnan(r.hidden.at(t, k)));
      } else {
        CHECK(testing::near(r.hidden.at(t, k), want.d_hidden[i * 7 + static_cast<std::size_t>(k)],
                            1e-4L, 1e-5L));
      }
    }
  }
}

TEST_CASE("a GEMM of the caller's own, and how much it is asked to do", "[head]") {
  random_source random{709};
  CAPTURE(random.seed());
  head_case<float> c{random, {72, 9, 1200}, true, {}, 0};  // a multiple of the rows' padding
  for (float& d : c.d_token) d = d == 0 ? 1.0F : d;
  const head_answer want{c};
  std::atomic<std::int64_t> work{0};
  const naive_gemm multiply{&work};
  const double unit = 72.0 * 9 * 1200;
  const auto products = [&] { return static_cast<double>(work.exchange(0)) / unit; };
  prospect::thread_pool pool{2};

  head_results<float> r{c.shape};
  head_workspace<float> workspace{plenty};
  head_log_probs(c.hidden.view(), c.head(), c.targets, r.scores(), workspace, false, c.options,
                 multiply, pool);
  CHECK(products() == 1);
  check_scores(c, r, want);
  head_gradient(c.hidden.view(), c.head(), c.targets, r.log_prob, r.lse, c.d_token, r.gradients(),
                {}, workspace, c.options, multiply, pool);
  CHECK(products() == 3);
  check_gradients(c, r, want);

  // 4 - f in all where a share f was kept.
  std::int64_t partly = 0;
  const std::int64_t least = least_bytes(c, false);
  for (const std::int64_t bytes : {least, 2 * least, 4 * least, plenty}) {
    head_workspace<float> elastic{bytes};
    head_results<float> s{c.shape};
    const head_ticket ticket = head_log_probs(c.hidden.view(), c.head(), c.targets, s.scores(),
                                              elastic, true, c.options, multiply, pool);
    const double share = static_cast<double>(ticket.kept()) / 72;
    partly += share > 0 && share < 1 ? 1 : 0;
    head_gradient(c.hidden.view(), c.head(), c.targets, s.log_prob, s.lse, c.d_token, s.gradients(),
                  ticket, elastic, c.options, multiply, pool);
    CAPTURE(bytes, share);
    CHECK_THAT(products(), WithinAbs(4 - share, 1e-9));
    check_gradients(c, s, want);
  }
  CHECK(partly > 0);

  head_results<float> frozen{c.shape};
  head_log_probs_and_gradient(c.hidden.view(), c.head(), c.targets, frozen.scores(),
                              frozen.hidden.view(), workspace, c.options, multiply, pool);
  CHECK(products() == 2);
  check_hidden(c, frozen, want.d_hidden_unit, false);

  head_results<float> step{c.shape};
  CHECK(run_step(c, step, sequence_layout::padded(4, 18), 2, workspace, pool, multiply));
  CHECK(products() == 3);
  check_gradients(c, step, want);

  // Masked tokens take no part.
  for (std::size_t t = 24; t < 72; ++t) c.targets[t] = ignored_target;
  head_log_probs(c.hidden.view(), c.head(), c.targets, r.scores(), workspace, false, c.options,
                 multiply, pool);
  CHECK_THAT(products(), WithinAbs(24.0 / 72, 1e-12));
}
