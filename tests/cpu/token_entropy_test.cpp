// The coefficient of a row's entropy on the CPU.

#include <prospect/cpu/tokens.hpp>

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "catch.hpp"
#include "closeness.hpp"
#include "cpu/logits.hpp"
#include "cpu/token_back_end.hpp"
#include "cpu/token_checks.hpp"
#include "cpu/token_entropy.hpp"
#include "cpu/vocabulary_parts.hpp"
#include "random.hpp"
#include "refusals.hpp"

namespace {

using prospect::bfloat16;
using prospect::compute_t;
using prospect::float16;
using prospect::ignored_target;
using prospect::token_options;
using testing::logits_matrix;
using testing::near;
using testing::on_cpu;
using testing::random_source;
using testing::same_bits;

}  // namespace

TEMPLATE_TEST_CASE("the coefficient of an entropy keeps the contract", "[tokens][entropy]", float,
                   double, bfloat16, float16) {
  random_source random{441};
  CAPTURE(random.seed());
  for (const token_options& options : testing::all_options) {
    for (const testing::row_kind kind : testing::all_row_kinds) {
      for (const std::int64_t vocabulary : {1, 2, 7, 67, 1025}) {
        CAPTURE(static_cast<int>(kind), vocabulary, options.temperature, options.soft_cap);
        const std::vector<std::int64_t> targets{0, ignored_target, vocabulary - 1,
                                                random.integer(0, vocabulary - 1), vocabulary / 2};
        logits_matrix<TestType> logits{5, vocabulary, random.integer(0, 9), random.integer(0, 7)};
        for (std::int64_t t = 0; t < 5; ++t) {
          fill(logits, t, kind, targets[static_cast<std::size_t>(t)], random);
        }
        // A certain token that is not the target.
        if (vocabulary > 7) {
          logits.at(2, 3) = testing::stored<TestType>(random.uniform(10, 30));
          logits.at(4, vocabulary / 2) = testing::stored<TestType>(random.uniform(10, 30));
        }
        testing::check_entropy(on_cpu, logits, targets, options, random);
      }
    }
  }
}

TEMPLATE_TEST_CASE("golden entropies and their gradients", "[tokens][entropy][golden]", float,
                   double) {
  testing::check_golden_entropy<TestType>(on_cpu);
}

TEMPLATE_TEST_CASE("entropies of rows with impossible tokens, and of what is no number",
                   "[tokens][entropy]", float, double, bfloat16, float16) {
  testing::check_entropy_of_impossible<TestType>(on_cpu);
}

TEST_CASE("an entropy's gradient is what its differences say", "[tokens][entropy]") {
  random_source random{442};
  CAPTURE(random.seed());
  const std::int64_t vocabulary = 13;
  for (const double scale : {1e-3, 1.0, 6.0}) {
    for (const token_options& options :
         {token_options{}, {.temperature = 0.7}, {.temperature = 1.5, .soft_cap = 4}}) {
      CAPTURE(scale, options.temperature, options.soft_cap);
      logits_matrix<double> logits{1, vocabulary}, gradient{1, vocabulary};
      logits.fill_row(0, [&](std::int64_t) { return random.normal(scale); });
      const std::vector<std::int64_t> targets{4};
      on_cpu.gradient(logits, gradient, targets, on_cpu.forward(logits, targets, options), {0.0},
                      {0.0}, {1.0}, options);
      constexpr double h = 1e-5;
      for (std::int64_t j = 0; j < vocabulary; ++j) {
        const auto moved = [&](double by) {
          logits_matrix<double> there = logits;
          there.at(0, j) += by;
          return on_cpu.forward(there, targets, options).entropy[0];
        };
        CHECK(near(gradient.at(0, j), (moved(h) - moved(-h)) / (2 * h), 1e-7L, 1e-9L));
      }
    }
  }
}

TEMPLATE_TEST_CASE("parts of a vocabulary with the whole row's entropy give the whole's bits",
                   "[tokens][entropy][vocabulary]", float, bfloat16) {
  random_source random{443};
  CAPTURE(random.seed());
  const std::int64_t vocabulary = 1001;
  const token_options options{.temperature = 0.7};
  logits_matrix<TestType> logits{3, vocabulary}, whole{3, vocabulary}, parts{3, vocabulary};
  const std::vector<std::int64_t> targets{0, ignored_target, 700};
  for (std::int64_t t = 0; t < 3; ++t) fill(logits, t, testing::row_kind::ordinary, 0, random);
  const auto pass = on_cpu.forward(logits, targets, options);
  const std::vector<float> a{0.5F, 1, 0}, b{0.5F, 1, 0}, c{-0.75F, 1, 2};
  on_cpu.gradient(logits, whole, targets, pass, a, b, c, options);
  for (const testing::shard& s : testing::any_split(random, vocabulary)) {
    prospect::cpu::logits_gradient<TestType>(
        s.of(logits.view()), s.of(parts.view()), targets, pass.log_prob, pass.lse,
        {.softmax = a, .onehot = b, .d_entropy = c, .entropy = pass.entropy},
        s.options(options, vocabulary));
  }
  CHECK(same_bits(parts.elements(), whole.elements()));
}

TEST_CASE("a coefficient without its entropy, or one of another size, is refused by name",
          "[tokens][entropy][errors]") {
  logits_matrix<float> logits{3, 8};
  const std::vector<std::int32_t> targets{1, 2, 3};
  const std::vector<float> three(3), two(2);
  const std::vector<double> lse(3);
  const auto refused = [&](const prospect::strided_span<const float>& d_entropy,
                           const prospect::strided_span<const float>& entropy) {
    return testing::refusal([&] {
      prospect::cpu::logits_gradient<float>(
          logits.view(), logits.view(), targets, three, lse,
          {.softmax = three, .onehot = three, .d_entropy = d_entropy, .entropy = entropy});
    });
  };
  const std::string d_entropy = "prospect: coefficients.d_entropy has ";
  const std::string entropy = "prospect: coefficients.entropy has ";
  CHECK(refused(two, three) == d_entropy + "2 elements, 3 are needed");
  CHECK(refused(three, two) == entropy + "2 elements, 3 are needed");
  CHECK(refused({}, three).starts_with(d_entropy));
  CHECK(refused(three, {}).starts_with(entropy));
  CHECK(refused(three, {nullptr, 3}).find("coefficients.entropy") != std::string::npos);
}
