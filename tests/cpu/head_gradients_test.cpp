// Which gradients of the head path are written, and what they are added to.

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
#include "random.hpp"

namespace {

using namespace testing;
using namespace prospect::cpu;

}  // namespace

TEMPLATE_TEST_CASE("weight and bias gradients add to what is there, if asked", "[head]", float,
                   bfloat16) {
  using R = compute_t<TestType>;
  random_source random{705};
  CAPTURE(random.seed());
  // With tokens, with masked ones only, with none.
  for (const auto& [tokens, masked] :
       {std::pair<std::int64_t, double>{40, 0.2}, {5, 1.0}, {0, 0.0}}) {
    head_case<TestType> c{random, {tokens, 7, 1100}, false, {}, masked};
    const head_answer want{c};
    for (const std::int64_t bytes : {std::max<std::int64_t>(least_bytes(c, false), 1), plenty}) {
      for (const bool step : {false, true}) {
        for (const bool accumulate : {false, true}) {
          CAPTURE(tokens, masked, bytes, step, accumulate);
          head_workspace<R> workspace{step ? plenty : bytes};
          head_results<TestType> r{c.shape};
          std::vector<double> weight = want.d_weight, bias = want.d_bias;
          for (std::int64_t v = 0; accumulate && v < 1100; ++v) {
            const auto i = static_cast<std::size_t>(v);
            r.bias[v] = static_cast<R>(random.normal(1));
            bias[i] += static_cast<double>(r.bias[v]);
            for (std::int64_t k = 0; k < 7; ++k) {
              r.weight.at(v, k) = static_cast<R>(random.normal(1));
              weight[i * 7 + static_cast<std::size_t>(k)] += static_cast<double>(r.weight.at(v, k));
            }
          }
          if (step) {
            head_step(
                c.hidden.view(), c.head(), c.targets, sequence_layout::padded(tokens, 1), 1,
                r.scores(), [](std::int64_t, std::int64_t) {},
                prospect::strided_span<const R>{c.d_token}, r.gradients(accumulate), workspace);
          } else {
            const head_ticket ticket =
                head_log_probs(c.hidden.view(), c.head(), c.targets, r.scores(), workspace, true);
            head_gradient(c.hidden.view(), c.head(), c.targets, r.log_prob, r.lse, c.d_token,
                          r.gradients(accumulate), ticket, workspace);
          }
          CHECK(testing::distance(r.weight.elements(), weight) <= sum_tolerance<R>);
          CHECK(testing::distance(r.bias.elements(), bias) <= sum_tolerance<R>);
          CHECK(r.weight.padding_untouched());
          check_hidden(c, r, want.d_hidden, true);
        }
      }
    }
  }
}

TEST_CASE("a gradient that is not wanted is not written, and the others are", "[head]") {
  random_source random{706};
  head_case<float> c{random, {20, 7, 1500}, true};
  const head_answer want{c};
  for (const bool keep : {false, true}) {
    for (int wanted = 0; wanted < 8; ++wanted) {
      CAPTURE(keep, wanted);
      head_results<float> r{c.shape};
      head_gradients<float> g = r.gradients();
      if (!(wanted & 1)) g.hidden = {};
      if (!(wanted & 2)) g.weight = {};
      if (!(wanted & 4)) g.bias = {};
      head_workspace<float> workspace{plenty};
      const head_ticket ticket =
          head_log_probs(c.hidden.view(), c.head(), c.targets, r.scores(), workspace, keep);
      head_gradient(c.hidden.view(), c.head(), c.targets, r.log_prob, r.lse, c.d_token, g, ticket,
                    workspace);
      head_results<float> untouched{c.shape};
      if (wanted & 1) {
        check_hidden(c, r, want.d_hidden, true);
      } else {
        CHECK(same_bits(r.hidden.elements(), untouched.hidden.elements()));
      }
      if (wanted & 2) {
        CHECK(testing::distance(r.weight.elements(), want.d_weight) <= 1e-5);
      } else {
        CHECK(same_bits(r.weight.elements(), untouched.weight.elements()));
      }
      if (wanted & 4) {
        CHECK(testing::distance(r.bias.elements(), want.d_bias) <= 1e-5);
      } else {
        CHECK(same_bits(r.bias.elements(), untouched.bias.elements()));
      }
    }
  }
  // Scores may be left out as well, kept gradients or not.
  for (const bool keep : {false, true}) {
    head_results<float> all{c.shape}, r{c.shape};
    head_workspace<float> workspace{plenty};
    head_log_probs(c.hidden.view(), c.head(), c.targets, all.scores(), workspace);
    const head_ticket ticket = head_log_probs(c.hidden.view(), c.head(), c.targets,
                                              {.entropy = r.entropy}, workspace, keep);
    CHECK(same_bits(r.entropy, all.entropy));
    head_gradient(c.hidden.view(), c.head(), c.targets, all.log_prob, all.lse, c.d_token,
                  r.gradients(), ticket, workspace);
    check_gradients(c, r, want);
  }
}

TEST_CASE("a coefficient of 0 keeps a token out, whatever its hidden state", "[head]") {
  random_source random{707};
  head_case<float> c{random, {24, 7, 1030}, false, {}, 0};
  c.d_token[5] = 0;
  const head_answer want{c};
  c.hidden.fill_row(5, [](std::int64_t) { return std::numeric_limits<double>::quiet_NaN(); });
  for (const bool keep : {false, true}) {
    CAPTURE(keep);
    head_results<float> r{c.shape};
    head_workspace<float> workspace{plenty};
    const head_ticket ticket =
        head_log_probs(c.hidden.view(), c.head(), c.targets, r.scores(), workspace, keep);
    CHECK(std::isnan(r.log_prob[5]));
    head_gradient(c.hidden.view(), c.head(), c.targets, r.log_prob, r.lse, c.d_token, r.gradients(),
                  ticket, workspace);
    check_gradients(c, r, want);
  }
  head_results<float> r{c.shape};
  head_workspace<float> workspace{plenty};
  head_step(
      c.hidden.view(), c.head(), c.targets, sequence_layout::padded(24, 1), 1, r.scores(),
      [](std::int64_t, std::int64_t) {}, prospect::strided_span<const float>{c.d_token},
      r.gradients(), workspace);
  check_gradients(c, r, want);
}

TEMPLATE_TEST_CASE("entropies have coefficients through the head as well", "[head][entropy]", float,
                   double, bfloat16) {
  using R = compute_t<TestType>;
  random_source random{708};
  CAPTURE(random.seed());
  for (const head_variant& variant : variants) {
    head_case<TestType> c{random, {30, 7, 1100}, variant.bias, variant.options};
    // Tokens whose kept gradients serve, and others: without a first coefficient, with both.
    for (std::size_t t = 0; t < c.d_token.size(); ++t) {
      c.d_entropy.push_back(t % 3 == 0 ? R(0) : static_cast<R>(random.normal(0.3)));
      if (t % 5 == 1) c.d_token[t] = 0;
    }
    const head_answer want{c};
    std::vector<R> minus;
    for (const R d : c.d_token) minus.push_back(-d);
    const auto check = [&](head_results<TestType>& r) {
      check_scores(c, r, want);
      CHECK(testing::distance(r.hidden.elements(), want.d_hidden) <= stored_tolerance<TestType>);
      CHECK(testing::distance(r.weight.elements(), want.d_weight) <= sum_tolerance<R>);
      CHECK(testing::distance(r.bias.elements(), want.d_bias) <= sum_tolerance<R>);
      CHECK(r.hidden.padding_untouched());
      CHECK(r.weight.padding_untouched());
      CHECK(r.bias.only_elements_written());
    };
    for (const std::int64_t bytes : workspaces(c)) {
      for (const bool keep : {false, true}) {
        CAPTURE(variant.options.temperature, variant.options.soft_cap, bytes, keep);
        head_results<TestType> r{c.shape};
        head_workspace<R> workspace{bytes};
        const head_ticket ticket = head_log_probs(c.hidden.view(), c.head(), c.targets, r.scores(),
                                                  workspace, keep, c.options);
        head_gradient(
            c.hidden.view(), c.head(), c.targets, r.log_prob, r.lse,
            {.softmax = minus, .onehot = minus, .d_entropy = c.d_entropy, .entropy = r.entropy},
            r.gradients(), ticket, workspace, c.options);
        check(r);
      }
    }
    head_results<TestType> r{c.shape};
    head_workspace<R> workspace{plenty};
    std::vector<R> softmax(minus.size(), poison<R>()), d_entropy = softmax;
    const auto ready = [&](std::int64_t first, std::int64_t last) {
      for (auto t = static_cast<std::size_t>(first); t < static_cast<std::size_t>(last); ++t) {
        softmax[t] = minus[t];
        d_entropy[t] = c.d_entropy[t];
      }
    };
    head_step(c.hidden.view(), c.head(), c.targets, sequence_layout::padded(30, 1), 1, r.scores(),
              ready,
              {.softmax = softmax, .onehot = softmax, .d_entropy = d_entropy, .entropy = r.entropy},
              r.gradients(), workspace, c.options);
    check(r);
  }
}

TEST_CASE("a head's two coefficients: one serves twice, or each has its own", "[head]") {
  random_source random{709};
  CAPTURE(random.seed());
  head_case<float> c{random, {24, 7, 1030}, true};
  std::vector<float> minus, half;
  for (const float d : c.d_token) minus.push_back(-d), half.push_back(-d / 2);
  const auto run = [&](bool keep, const auto& coefficients) {
    head_results<float> r{c.shape};
    head_workspace<float> workspace{plenty};
    const head_ticket ticket =
        head_log_probs(c.hidden.view(), c.head(), c.targets, r.scores(), workspace, keep);
    head_gradient(c.hidden.view(), c.head(), c.targets, r.log_prob, r.lse, coefficients,
                  r.gradients(), ticket, workspace);
    return r;
  };
  using two = prospect::token_coefficients<float>;
  for (const bool keep : {false, true}) {
    CAPTURE(keep);
    auto one = run(keep, prospect::strided_span<const float>{c.d_token});
    auto twice = run(keep, two{.softmax = minus, .onehot = minus});
    CHECK(one.same_as(twice));
  }
  // None of them is a share of what was kept.
  auto again = run(false, two{.softmax = minus, .onehot = half});
  auto kept = run(true, two{.softmax = minus, .onehot = half});
  auto equal = run(true, two{.softmax = minus, .onehot = minus});
  CHECK(again.same_as(kept));
  CHECK_FALSE(same_bits(equal.weight.elements(), kept.weight.elements()));
}
