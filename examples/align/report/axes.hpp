// What an axis shows, and where its round numbers are.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

namespace align {

struct axis_range {
  double low = std::numeric_limits<double>::infinity();
  double high = -std::numeric_limits<double>::infinity();

  void include(double x) {
    low = std::min(low, x);
    high = std::max(high, x);
  }

  void widen(double share) {
    const double room = high > low ? share * (high - low) : 0.5;
    low -= room;
    high += room;
  }
};

// 1, 2 or 5 times a power of ten, for about `count` steps.
inline double tick_step(const axis_range& r, int count) {
  const double rough = (r.high - r.low) / count;
  const double power = std::pow(10, std::floor(std::log10(rough)));
  for (const double nice : {1.0, 2.0, 5.0}) {
    if (nice * power >= rough) return nice * power;
  }
  return 10 * power;
}

inline int tick_decimals(double step) {
  return std::max(0, static_cast<int>(-std::floor(std::log10(step) + 1e-9)));
}

}  // namespace align
