// What the tests of the head path on CUDA have in common: a pass of a case, and its answers against
// the textbook (cpu/head_cases.hpp).

#pragma once

#include <prospect/cuda/head.cuh>

#include <cmath>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "catch.hpp"
#include "cpu/head_cases.hpp"
#include "cuda/device.hpp"
#include "cuda/head_device.hpp"

namespace testing {

/// A forward pass, in the memory that it asks for.
template <class S>
void score(on_device<S>& d, const prospect::cuda::head_rows<S>& rows, const test_gemm& multiply) {
  require_success(with_scratch([&](prospect::cuda::scratch space) {
    return prospect::cuda::head_log_probs<S>(rows, d.out(), multiply, space, nullptr);
  }));
}
/// And the backward pass that follows it, from the case's coefficients.
template <class S>
void differentiate(on_device<S>& d, const prospect::cuda::head_rows<S>& rows,
                   const prospect::head_gradients<S>& gradients, const test_gemm& multiply) {
  require_success(with_scratch([&](prospect::cuda::scratch space) {
    return prospect::cuda::head_gradient<S>(rows, d.log_prob.input(), d.lse.input(),
                                            d.d_token.input(), gradients, {}, multiply, space,
                                            nullptr);
  }));
}

template <class S>
inline constexpr double sums_tolerance = std::is_same_v<S, float> ? 2e-5 : 4e-3;

template <class S>
void check_scores(on_device<S>& d, const head_answer& want) {
  const auto log_prob = d.log_prob.host();
  const auto lse = d.lse.host();
  const auto entropy = d.entropy.host();
  // Of an adapter what the hidden states become in between is stored as they are.
  const double tolerance = d.c.shape.rank > 0 && sizeof(S) == 2 ? 2e-2 : 1e-4;
  std::int64_t wrong = 0;
  for (std::size_t t = 0; t < d.n; ++t) {
    const auto near = [&](double got, double right) {
      return std::abs(got - right) <= tolerance * (1 + std::abs(right));
    };
    const bool good = !d.c.scored(static_cast<std::int64_t>(t))
                          ? log_prob[t] == 0 && lse[t] == 0 && entropy[t] == 0
                          : near(log_prob[t], want.log_prob[t]) && near(lse[t], want.lse[t]) &&
                                near(entropy[t], want.entropy[t]);
    wrong += good ? 0 : 1;
  }
  CHECK(wrong == 0);
  CHECK(d.scored.host()[0] == d.count());
}

template <class S>
void check_hidden(on_device<S>& d, const std::vector<double>& want, bool coefficients) {
  logits_matrix<S>& got = d.d_hidden.fetch();
  CHECK(distance(got.elements(), want) <= sums_tolerance<S>);
  CHECK(got.padding_untouched());
  std::int64_t not_zero = 0;
  for (std::size_t t = 0; t < d.n; ++t) {
    if (d.c.scored(static_cast<std::int64_t>(t)) && !(coefficients && d.c.d_token[t] == 0))
      continue;
    for (std::int64_t k = 0; k < d.c.shape.width; ++k) {
      not_zero += prospect::load(got.at(static_cast<std::int64_t>(t), k)) == 0 ? 0 : 1;
    }
  }
  CHECK(not_zero == 0);
}

template <class S>
void check_gradients(on_device<S>& d, const head_answer& want) {
  check_hidden(d, want.d_hidden, true);
  CHECK(distance(d.d_weight.fetch().elements(), want.d_weight) <= sums_tolerance<S>);
  if (d.d_bias.size() > 0) {
    CHECK(distance(d.d_bias.host(), want.d_bias) <= sums_tolerance<S>);
  }
  // What is between the two factors of an adapter is rounded once more.
  CHECK(distance(d.d_a.fetch().elements(), want.d_lora_a) <= 1.5 * sums_tolerance<S>);
  CHECK(distance(d.d_b.fetch().elements(), want.d_lora_b) <= 1.5 * sums_tolerance<S>);
  CHECK(d.host_d_weight.padding_untouched());
  CHECK(d.host_d_a.padding_untouched());
  CHECK(d.host_d_b.padding_untouched());
}

}  // namespace testing
