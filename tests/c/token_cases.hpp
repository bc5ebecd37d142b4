// A small batch of tokens for the tests of the C surface, in the form both surfaces take, and
// everything that may come out of it.

#pragma once

#include <prospect/layout.hpp>
#include <prospect/tokens.hpp>

#include <cmath>
#include <cstdint>
#include <vector>

#include "c/surface.hpp"
#include "cpu/logits.hpp"
#include "random.hpp"

namespace testing {

/// Logits of 6 rows in a pitch, with outputs that nobody has written yet.
template <class S>
struct token_case {
  using R = prospect::compute_t<S>;
  static constexpr std::int64_t rows = 6, columns = 5, pitch = 8;

  std::vector<S> logits;
  std::vector<R> log_prob = std::vector<R>(rows, R(7)), entropy = log_prob, squares = log_prob,
                 mean = log_prob, d_token = log_prob;
  std::vector<double> lse = std::vector<double>(rows, 7);
  std::vector<std::uint8_t> hit = std::vector<std::uint8_t>(rows, 7);
  std::vector<double> sums = std::vector<double>(2, 7);
  std::vector<std::int32_t> counts = std::vector<std::int32_t>(2, 7);
  std::vector<std::int32_t> shifted = std::vector<std::int32_t>(rows, 7);

  explicit token_case(std::uint64_t seed = 72) {
    random_source random{seed};
    for (std::int64_t k = 0; k < rows * pitch; ++k) {
      logits.push_back(stored<S>(random.normal(3)));
    }
  }
  prospect_matrix c_matrix() {
    prospect_matrix m = prospect_matrix_of(logits.data(), rows, columns, c_dtype<S>());
    m.pitch = pitch;
    return m;
  }
  prospect::matrix_view<S> matrix() { return {logits.data(), rows, columns, pitch}; }
  prospect_token_results c_results() {
    auto r = sized<prospect_token_results>();
    r.log_prob = c_row(log_prob);
    r.lse = c_row(lse);
    r.entropy = c_row(entropy);
    r.sum_squares = c_row(squares);
    r.mean_logit = c_row(mean);
    r.target_is_argmax = c_row(hit);
    return r;
  }
  prospect::token_outputs<R> results() {
    return {.log_prob = log_prob,
            .lse = lse,
            .entropy = entropy,
            .sum_squares = squares,
            .mean_logit = mean,
            .target_is_argmax = hit};
  }
  prospect_token_coefficients c_coefficients() {
    auto c = sized<prospect_token_coefficients>();
    c.log_prob = c_row(log_prob);
    c.lse = c_row(lse);
    c.d_token = c_row(d_token);
    return c;
  }
};

/// The archive may have chosen a wider instruction set than a test was compiled for.
template <class T>
bool close(const std::vector<T>& a, const std::vector<T>& b, double places = 1) {
  const auto number = [](T x) {
    if constexpr (prospect::storage<T>) {
      return static_cast<double>(prospect::load(x));
    } else {
      return static_cast<double>(x);
    }
  };
  const double last_place = places * (sizeof(T) == 2 ? 0x1p-8 : 1e-6);
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double x = number(a[i]), y = number(b[i]);
    if (std::isnan(x) != std::isnan(y)) return false;
    if (!std::isnan(x) && x != y && !(std::abs(x - y) <= 1e-6 + last_place * std::abs(y))) {
      return false;
    }
  }
  return a.size() == b.size();
}

}  // namespace testing
