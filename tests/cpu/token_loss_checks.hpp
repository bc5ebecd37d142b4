// Whether what came of a batch of tokens is what the textbook says.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "catch.hpp"
#include "closeness.hpp"
#include "cpu/token_loss_cases.hpp"

namespace testing {

/// Of one number, relative to it.
inline double rounding_of(prospect::dtype type) {
  switch (type) {
    case prospect::dtype::f64:
      return 1e-15;
    case prospect::dtype::f16:
      return 1e-3;
    case prospect::dtype::bf16:
      return 8e-3;
    default:
      return 1e-7;
  }
}

inline void check_token_results(const token_loss_case& c, const prospect::token_metrics& m,
                                averaging average, const token_expectation& want) {
  const double relative = c.in_fp64() ? 1e-12 : 2e-5;
  const auto agrees = [&](const run_time_row& got, const std::vector<double>& wanted) {
    double largest = 0;
    for (const double x : wanted) largest = std::max(largest, std::abs(x));
    const double rounding = rounding_of(got.type());
    const double smallest = got.type() == prospect::dtype::f16 ? 1e-7 : 0;
    for (std::int64_t t = 0; t < c.rows; ++t) {
      const double x = wanted[static_cast<std::size_t>(t)];
      const bool none = x == 0 && got[t] == 0;
      if (!none && !near(got[t], x, rounding, relative * largest + smallest)) {
        UNSCOPED_INFO("row " << t << ": " << got[t] << " for " << x);
        return false;
      }
    }
    return true;
  };
  CHECK(agrees(c.loss, want.loss));
  CHECK(agrees(c.d_policy, want.d_policy));
  CHECK(agrees(c.d_entropy, want.d_entropy));
  const double scale = relative * (1 + static_cast<double>(c.rows));
  const auto is = [&](const prospect::sum_count& got, double sum, double count) {
    return near(got.sum, sum, relative, scale) && got.count == count;
  };
  const bool by_tokens = average == averaging::tokens;
  const bool advantages = c.advantage.given() || c.token_advantage.given();
  CHECK(is(m.loss, want.loss_sum, by_tokens ? want.tokens : want.sequences));
  CHECK(is(m.tokens, want.tokens, want.sequences));
  CHECK(is(m.ratio, want.ratio, want.tokens));
  CHECK(is(m.advantages, want.advantages, advantages ? want.tokens : 0));
  CHECK(is(m.clip_ratio, want.clipped, advantages ? want.tokens : 0));
  CHECK(is(m.kl, want.kl, c.reference.given() ? want.tokens : 0));
  CHECK(is(m.entropy, want.entropy, c.entropy.given() ? want.tokens : 0));
  CHECK(is(m.nonfinite, 0, want.tokens));
  CHECK(m.first_nonfinite == -1);
  CHECK(near(m.total, want.total, relative, scale));
}

}  // namespace testing
