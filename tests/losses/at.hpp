// One loss at one point, as a number of its own: what the tests of facts and claims look at.
#pragma once

#include <prospect/losses/differentiate.hpp>

#include "losses/textbook.hpp"
#include "oracle/scalar.hpp"

namespace testing {

/// A loss of one pair whose margin (before beta) is x.
template <class R = double, class L>
prospect::paired_value<R> at_margin(const L& loss, double x) {
  return prospect::differentiate(loss, sample<R>(textbook_pair{x, 0}));
}

template <class R = double, class L>
prospect::unpaired_value<R> at_ratio(const L& loss, double x, bool desirable, double z = 0) {
  return prospect::differentiate(loss, sample<R>(textbook_answer{x, desirable, z}));
}

/// Where f changes its sign between low and high.
template <class F>
double root_of(const F& f, double low, double high) {
  const bool rising = f(high) > 0;
  for (int step = 0; step < 200; ++step) {
    const double middle = low + (high - low) / 2;
    ((f(middle) > 0) == rising ? high : low) = middle;
  }
  return low;
}

inline double sigmoid(double x) { return static_cast<double>(oracle::sigmoid(x)); }

}  // namespace testing
