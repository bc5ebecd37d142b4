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
