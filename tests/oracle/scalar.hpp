// The textbook functions every oracle is made of, in long double (64-bit significand on x86).
//
// Written from the papers, never from the library: no dual numbers, no branches tuned for speed.
// The only care taken is to avoid forms that cancel, so that each result carries far more than fp32
// bits.

#pragma once

#include <cmath>

namespace oracle {

using real = long double;

inline real square(real x) { return x * x; }

// 1 / (1 + e^-x). Not 1 - sigmoid(-x): that form has no bits left for negative x.
inline real sigmoid(real x) { return 1 / (1 + std::exp(-x)); }

inline real sigmoid_slope(real x) { return sigmoid(x) * sigmoid(-x); }

// log(1 + e^x). Past 11000 e^x leaves long double, and log(1 + e^x) - x = e^-x left its bits long
// before.
inline real softplus(real x) { return x > 11000 ? x : std::log1p(std::exp(x)); }

inline real log_sigmoid(real x) { return -softplus(-x); }

// log(1 - e^x) for x <= 0, with the subtraction left to whichever of expm1 and log1p does not
// cancel.
inline real log1mexp(real x) {
  return x < -1 ? std::log1p(-std::exp(x)) : std::log(-std::expm1(x));
}

}  // namespace oracle
