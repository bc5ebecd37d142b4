// Every float, or a dense sample of them: all exponents of both signs, with zeros, subnormals,
// infinities and NaN. The same checks run on either; the whole set is for the opt-in tests.

#pragma once

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

#include "random.hpp"

namespace testing {

enum class floats { dense, all };

struct worst_float {
  double error = 0;
  float at = 0;
};

namespace detail {

inline const std::vector<float>& dense_floats() {
  static const std::vector<float> sample = [] {
    random_source random{20240201};
    std::vector<float> floats;
    for (std::uint32_t block = 0; block < 512; ++block) {
      const std::uint32_t start = block << 23;  // sign and exponent
      for (const std::uint32_t mantissa : {0U, 1U, 2U, 0x400000U, 0x7ffffeU, 0x7fffffU}) {
        floats.push_back(std::bit_cast<float>(start | mantissa));
      }
      for (std::uint32_t step = 0; step < 400; ++step) {
        const auto jitter = static_cast<std::uint32_t>(random.bits() % 0x5000U);
        floats.push_back(std::bit_cast<float>(start | (step * 0x5000U + jitter)));
      }
    }
    // Where formulas branch, saturate or change their exponent.
    for (const float centre :
         {0.25F, 0.34657359F, 0.5F, 0.69314718F, 1.0F, 2.0F, 16.6355F, 17.3287F, 80.0F, 87.3365F,
          88.0297F, 88.7228F, 103.2789F, 103.9721F}) {
      const auto bits = std::bit_cast<std::uint32_t>(centre);
      for (std::uint32_t offset = 0; offset < 500; ++offset) {
        const float x = std::bit_cast<float>(bits - 250 + offset);
        floats.push_back(x);
        floats.push_back(-x);
      }
    }
    return floats;
  }();
  return sample;
}

inline void keep_worse(worst_float& worst, double error, float x) {
  if (std::isnan(error) || error > worst.error) worst = {error, x};
}

template <class Error>
worst_float worst_of_all(const Error& error) {
  constexpr std::uint64_t chunk = 1U << 22, end = 1ULL << 32;
  std::atomic<std::uint64_t> next{0};
  std::mutex guard;
  worst_float worst;
  const auto work = [&] {
    worst_float mine;
    for (std::uint64_t first; (first = next.fetch_add(chunk)) < end;) {
      for (std::uint64_t bits = first; bits < first + chunk; ++bits) {
        const float x = std::bit_cast<float>(static_cast<std::uint32_t>(bits));
        keep_worse(mine, error(x), x);
      }
    }
    const std::lock_guard lock{guard};
    keep_worse(worst, mine.error, mine.at);
  };
  std::vector<std::jthread> threads;
  for (unsigned i = 0; i < std::max(1U, std::thread::hardware_concurrency()); ++i) {
    threads.emplace_back(work);
  }
  threads.clear();  // joins
  return worst;
}

}  // namespace detail

/// The float at which `error(x)` is largest.
template <class Error>
worst_float worst_over(floats which, const Error& error) {
  if (which == floats::all) return detail::worst_of_all(error);
  worst_float worst;
  for (const float x : detail::dense_floats()) detail::keep_worse(worst, error(x), x);
  return worst;
}

}  // namespace testing
