// The textbook functions every oracle is made of, in long double (64-bit significand on x86).
//
// Written from the papers, never from the library: no dual numbers, no branches tuned for speed.
// The only care taken is to avoid forms that cancel, so that each result carries far more than fp32
// bits.

#pragma once

#include <cmath>
#include <concepts>

namespace oracle {

using real = long double;

// In double, for fp32 on all floats, where long double would take days.

template <std::floating_point T>
T square(T x) {
  return x * x;
}

// 1 / (1 + e^-x). Not 1 - sigmoid(-x): that form has no bits left for negative x.
template <std::floating_point T>
T sigmoid(T x) {
  return 1 / (1 + std::exp(-x));
}

template <std::floating_point T>
T sigmoid_slope(T x) {
  return sigmoid(x) * sigmoid(-x);
}

// log(1 + e^x). Past 700 e^x leaves double, and log(1 + e^x) - x = e^-x left its bits long before.
template <std::floating_point T>
T softplus(T x) {
  return x > 700 ? x : std::log1p(std::exp(x));
}

template <std::floating_point T>
T log_sigmoid(T x) {
  return -softplus(-x);
}

// log(1 - e^x) for x <= 0, with the subtraction left to whichever of expm1 and log1p does not
// cancel.
template <std::floating_point T>
T log1mexp(T x) {
  return x < -1 ? std::log1p(-std::exp(x)) : std::log(-std::expm1(x));
}

}  // namespace oracle
