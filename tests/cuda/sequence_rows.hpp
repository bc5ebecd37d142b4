// Rows of random batches in any type, and comparisons of what the device makes of them with what
// the CPU does.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "catch.hpp"
#include "cpu/rows.hpp"
#include "cuda/sequence_cases.hpp"
#include "random.hpp"

namespace testing {

template <class S>
std::vector<S> log_probs(random_source& random, std::int64_t n) {
  std::vector<S> row;
  for (std::int64_t i = 0; i < n; ++i) row.push_back(stored<S>(random.normal(8) - 20));
  return row;
}
/// Weights of any sign, 0 among them; margins.
inline std::vector<float> weights(random_source& random, std::int64_t n) {
  std::vector<float> row;
  for (std::int64_t i = 0; i < n; ++i) {
    row.push_back(i % 5 == 3 ? 0.0F : static_cast<float>(random.normal(2)));
  }
  return row;
}
inline std::vector<std::int32_t> tokens(random_source& random, std::int64_t n) {
  std::vector<std::int32_t> row;
  for (std::int64_t i = 0; i < n; ++i) row.push_back(token_count(random, true));
  return row;
}

template <class T>
device_array<T> empty(std::int64_t n) {
  return device_array<T>(static_cast<std::size_t>(n));
}

/// Each number within `tolerance`, relatively or absolutely, and one rounding to S.
template <class S>
void check_near(const std::vector<S>& got, const std::vector<S>& want, long double tolerance) {
  REQUIRE(got.size() == want.size());
  for (std::size_t i = 0; i < got.size(); ++i) {
    CAPTURE(i, prospect::load(got[i]), prospect::load(want[i]));
    const long double x = prospect::load(want[i]);
    CHECK(stored_near<S>(got[i], x, tolerance * (1 + std::abs(x))));
  }
}

inline void check_metrics(const auto& got, const auto& want, long double tolerance) {
  for (std::size_t k = 0; k < got.named().size(); ++k) {
    const auto g = got.named()[k];
    const auto w = want.named()[k].value;
    CAPTURE(g.name);
    CHECK(g.value.count == w.count);
    CHECK(near(g.value.sum, w.sum, tolerance, tolerance * w.count));
  }
  CHECK(got.first_nonfinite == want.first_nonfinite);
  CHECK(near(got.total, want.total, tolerance, tolerance));
}

}  // namespace testing
