// Random logits for the benches, and the textbook formulas in long double that their answers are
// held against before anything is timed.
#pragma once

#include "memory.hpp"

#include <prospect/core/dtype.hpp>
#include <prospect/core/matrix_view.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <string>
#include <vector>

namespace bench {

template <prospect::storage S>
inline constexpr const char* name_of = std::same_as<S, float>                ? "fp32"
                                       : std::same_as<S, double>             ? "fp64"
                                       : std::same_as<S, prospect::bfloat16> ? "bf16"
                                                                             : "fp16";

/// A stream of numbers that is cheap enough to fill gigabytes (splitmix64).
class random_numbers {
 public:
  explicit random_numbers(std::uint64_t seed) : state_{seed} {}
  std::uint64_t bits() noexcept {
    std::uint64_t x = state_ += 0x9e3779b97f4a7c15U;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9U;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebU;
    return x ^ (x >> 31);
  }
  std::int64_t below(std::int64_t end) noexcept {
    return static_cast<std::int64_t>(bits() % static_cast<std::uint64_t>(end));
  }
  /// Close to normal, mean 0, variance 1: the sum of four uniforms.
  float normal() noexcept {
    const std::uint64_t x = bits();
    const auto sum = static_cast<float>((x & 0xffffU) + ((x >> 16) & 0xffffU) +
                                        ((x >> 32) & 0xffffU) + (x >> 48));
    return (sum / 65536.0F - 2.0F) * 1.7320508F;
  }

 private:
  std::uint64_t state_;
};

template <prospect::storage S>
void fill_normal(std::span<S> numbers, float deviation, std::uint64_t seed) {
  random_numbers random{seed};
  for (S& x : numbers) x = prospect::store<S>(prospect::compute_t<S>(deviation * random.normal()));
}

inline std::vector<std::int32_t> random_targets(std::int64_t rows, std::int64_t vocabulary) {
  random_numbers random{7};
  std::vector<std::int32_t> targets(static_cast<std::size_t>(rows));
  for (std::int32_t& t : targets) t = static_cast<std::int32_t>(random.below(vocabulary));
  return targets;
}

/// A wrong answer ends the program: there is nothing to time.
inline void require(bool right, const std::string& what, double got, double expected) {
  if (right) return;
  std::fprintf(stderr, "%s: %.9g, expected %.9g\n", what.c_str(), got, expected);
  std::exit(1);
}

inline void require_close(const std::string& what, double got, double expected, double tolerance) {
  require(std::abs(got - expected) <= tolerance, what, got, expected);
}

/// log sum e^x of one row, by the book.
template <prospect::storage S>
long double reference_lse(const S* x, std::int64_t size) {
  long double largest = -std::numeric_limits<long double>::infinity();
  for (std::int64_t j = 0; j < size; ++j) {
    largest = std::max(largest, static_cast<long double>(prospect::load(x[j])));
  }
  long double sum = 0;
  for (std::int64_t j = 0; j < size; ++j) sum += std::exp(prospect::load(x[j]) - largest);
  return largest + std::log(sum);
}

/// Relative error that rounding once to S, or 8 ulp of fp32, allows.
template <prospect::storage S>
inline constexpr double gradient_tolerance = std::same_as<S, prospect::bfloat16>  ? 0x1p-8 + 4e-6
                                             : std::same_as<S, prospect::float16> ? 0x1p-11 + 4e-6
                                                                                  : 8 * 0x1p-23;

/// One row of gradient against factor (onehot(target) - softmax(x)).
template <prospect::storage S>
void require_gradient(const S* gradient, const S* x, std::int64_t size, std::int64_t target,
                      double factor) {
  const long double lse = reference_lse(x, size);
  const double smallest = std::same_as<S, prospect::float16> ? 0x1p-25 : 1e-37;
  for (std::int64_t j = 0; j < size; ++j) {
    const long double p = std::exp(prospect::load(x[j]) - lse);
    const auto expected = static_cast<double>(factor * (j == target ? 1 - p : -p));
    require_close(std::string{name_of<S>} + " gradient", prospect::load(gradient[j]), expected,
                  gradient_tolerance<S> * std::abs(expected) + smallest);
  }
}

}  // namespace bench
