// Every built-in loss as its paper states it, with the gradient differentiated by hand.
//
// a and b are the log-ratios log pi/pi_ref of the chosen and the rejected completion, in nats;
// gradients are with respect to the policy's summed log-probs (the reference carries none).

#pragma once

#include <algorithm>

#include "scalar.hpp"

namespace oracle {

struct paired_value {
  real loss, d_chosen, d_rejected;
};

struct unpaired_value {
  real loss, d_policy, d_z;
};

// A loss of the margin m = beta (a - b): the chain rule gives +beta f'(m) and -beta f'(m).
inline paired_value of_margin(real loss, real slope, real beta) {
  return {loss, beta * slope, -beta * slope};
}

// Rafailov et al. 2023; label smoothing as in Mitchell's cDPO note: -(1-e) log s(m) - e log s(-m).
inline paired_value dpo(real a, real b, real beta, real label_smoothing) {
  const real e = label_smoothing, m = beta * (a - b);
  const real loss = -(1 - e) * log_sigmoid(m) - e * log_sigmoid(-m);
  return of_margin(loss, -(1 - e) * sigmoid(-m) + e * sigmoid(m), beta);
}

// Chowdhury et al. 2024: ((1-e) l(m) - e l(-m)) / (1 - 2e) with l(m) = -log s(m).
inline paired_value robust_dpo(real a, real b, real beta, real label_smoothing) {
  const real e = label_smoothing, m = beta * (a - b);
  const real loss = (-(1 - e) * log_sigmoid(m) + e * log_sigmoid(-m)) / (1 - 2 * e);
  return of_margin(loss, (-(1 - e) * sigmoid(-m) - e * sigmoid(m)) / (1 - 2 * e), beta);
}

// Zhao et al. 2023 (SLiC), Liu et al. 2023 (RSO): max(0, 1 - m); the slope at the kink is 0.
inline paired_value hinge(real a, real b, real beta) {
  const real m = beta * (a - b);
  return of_margin(std::max<real>(0, 1 - m), m < 1 ? -1 : 0, beta);
}

// Azar et al. 2023, eq. 17, on sums: (a - b - 1/(2 tau))^2.
inline paired_value ipo_sum(real a, real b, real tau) {
  const real residual = a - b - 1 / (2 * tau);
  return {square(residual), 2 * residual, -2 * residual};
}

// The same on means over scored tokens; an empty completion counts as one token.
inline paired_value ipo(real a, real b, real n_chosen, real n_rejected, real tau) {
  const real n_w = std::max<real>(1, n_chosen), n_l = std::max<real>(1, n_rejected);
  const real residual = a / n_w - b / n_l - 1 / (2 * tau);
  return {square(residual), 2 * residual / n_w, -2 * residual / n_l};
}

// Ethayarajh et al. 2024: w_D (1 - s(beta (r - z))) or w_U (1 - s(beta (z - r))).
inline unpaired_value kto(real r, bool desirable, real z, real beta, real desirable_weight,
                          real undesirable_weight) {
  if (desirable) {
    const real u = beta * (r - z), g = beta * desirable_weight * sigmoid_slope(u);
    return {desirable_weight * sigmoid(-u), -g, g};
  }
  const real u = beta * (z - r), g = beta * undesirable_weight * sigmoid_slope(u);
  return {undesirable_weight * sigmoid(-u), g, -g};
}

inline unpaired_value kto_zero(real r, bool desirable, real beta, real desirable_weight,
                               real undesirable_weight) {
  unpaired_value value = kto(r, desirable, 0, beta, desirable_weight, undesirable_weight);
  value.d_z = 0;
  return value;
}

}  // namespace oracle
