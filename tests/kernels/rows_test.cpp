// The row kernels of every instruction set this machine has: each within the numeric contract.

#include <kernels/rows.hpp>

#include <cmath>
#include <cstdint>
#include <limits>

#include "catch.hpp"
#include "closeness.hpp"
#include "cpu/logits.hpp"
#include "cpu/token_entropy.hpp"
#include "kernels/sets.hpp"
#include "oracle/softmax.hpp"
#include "random.hpp"

namespace {

namespace pk = prospect::kernels;
using prospect::bfloat16;
using prospect::compute_t;
using prospect::float16;
using prospect::cpu::detail::row_kernels;

}  // namespace

TEMPLATE_TEST_CASE("every instruction set keeps the contract", "[rows]", float, double, bfloat16,
                   float16) {
  testing::random_source random{301};
  CAPTURE(random.seed());
  for (const pk::isa set : testing::sets_of_this_machine()) {
    const row_kernels<TestType> kernels = pk::rows_for<TestType>(set);
    for (const std::int64_t vocabulary : {1, 63, 1025, 9001}) {
      CAPTURE(static_cast<int>(set), vocabulary);
      testing::logits_matrix<TestType> logits{1, vocabulary};
      logits.fill_row(0, [&](std::int64_t) { return random.normal(4); });
      const std::int64_t target = random.integer(0, vocabulary - 1);
      const auto want = oracle::softmax(logits.row(0), target);
      const auto got =
          prospect::finish(kernels.sum(logits.view().row(0), vocabulary, target, true, {}));
      CHECK(testing::near(got.log_prob, want.log_prob, 4e-6L, 4e-6L));
      CHECK(testing::near(got.lse, want.lse, 0, 3e-7L));
      using R = compute_t<TestType>;
      const auto wrong_columns = [&](const TestType* x) {
        std::int64_t wrong = 0;
        for (std::int64_t j = 0; j < vocabulary; ++j) {
          const auto w = want.gradient[static_cast<std::size_t>(j)];
          const bool ok = sizeof(TestType) == 2
                              ? testing::stored_near<TestType>(x[j], w, 4e-6L * std::abs(w))
                              : testing::near(prospect::load(x[j]), w, 1e-6L);
          wrong += ok ? 0 : 1;
        }
        return wrong;
      };
      auto again = logits;
      TestType* const x = logits.view().row(0);
      kernels.gradient(x, x, vocabulary, target, got.log_prob, got.lse,
                       {.softmax = R(-1), .onehot = R(-1)}, {});
      CHECK(wrong_columns(x) == 0);
      CHECK(logits.padding_untouched());

      // The gradient of its entropy, through a map.
      const prospect::logit_map map{.inverse_temperature = 0.5, .soft_cap = 20};
      const oracle::softmax_options options{.temperature = 2, .soft_cap = 20};
      auto tilted = again;
      TestType* const w = tilted.view().row(0);
      const auto sums = prospect::finish(kernels.sum(w, vocabulary, target, true, map));
      const R entropy = static_cast<R>(sums.entropy);
      kernels.gradient(w, w, vocabulary, target, sums.log_prob, sums.lse,
                       {.softmax = R(0.5), .onehot = R(0), .d_entropy = R(-1), .entropy = entropy},
                       map);
      CHECK(testing::wrong_entropy_columns(again, tilted, 0, target, 0.5L, 0, -1, entropy,
                                           options) == 0);
      CHECK(tilted.padding_untouched());

      TestType* const y = again.view().row(0);
      prospect::cpu::detail::kept_exponentials kept;
      const auto same =
          prospect::finish(kernels.sum_keeping(y, vocabulary, target, true, {}, kept));
      CHECK(same.lse == got.lse);
      kernels.gradient_of_kept(y, vocabulary, target, same.log_prob, same.lse, R(-1), R(-1), {},
                               kept);
      CHECK(wrong_columns(y) == 0);
      CHECK(again.padding_untouched());
    }
  }
}

TEMPLATE_TEST_CASE("every instruction set takes coefficients of any size", "[rows]", float,
                   bfloat16) {
  testing::random_source random{302};
  CAPTURE(random.seed());
  constexpr float most = std::numeric_limits<float>::max();
  constexpr double normal = std::numeric_limits<float>::min();
  for (const pk::isa set : testing::sets_of_this_machine()) {
    const row_kernels<TestType> kernels = pk::rows_for<TestType>(set);
    for (const float a :
         {0.0F, -0.0F, 1e-45F, 1e-30F, -3.0F, 1e20F, -1e32F, 1e36F, 3.3e38F, most, -most}) {
      for (const double lse : {0.3, -99.7, 113.2, 64000.4, -65530.6, 1e5}) {
        CAPTURE(static_cast<int>(set), a, lse);
        testing::logits_matrix<TestType> logits{1, 200}, got{1, 200};
        logits.fill_row(0, [&](std::int64_t) { return lse - random.uniform(0.01, 400); });
        kernels.gradient(logits.view().row(0), got.view().row(0), 200, -1, 0, lse,
                         {.softmax = a, .onehot = 0}, {});
        std::int64_t wrong = 0;
        for (std::int64_t j = 0; j < 200; ++j) {
          const long double x = prospect::load(logits.at(0, j));
          const long double want = a * std::exp(x - static_cast<long double>(lse));
          const double g = prospect::load(got.at(0, j));
          // Large coefficients leave nothing where a power of two is at its lowest already.
          const double nothing = std::abs(a) > 0x1p102F ? normal * std::abs(a) / 0x1p100 : normal;
          const bool gone = g == 0 && std::abs(want) < 1.03L * nothing;
          const long double near = (sizeof(TestType) == 2 ? 4.1e-3L : 2e-6L) * std::abs(want);
          wrong += gone || std::abs(g - want) <= near || std::abs(want) > most ? 0 : 1;
        }
        CHECK(wrong == 0);
      }
    }
  }
}
