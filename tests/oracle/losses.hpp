// Every built-in loss as its paper states it, with the gradient differentiated by hand.
//
// a and b are the log-ratios log pi/pi_ref of the chosen and the rejected completion, in nats;
// gradients are with respect to the policy's summed log-probs (the reference carries none). Callers
// say the type: real, or double where all floats are asked.

#pragma once

#include <algorithm>
#include <concepts>

#include "scalar.hpp"

namespace oracle {

template <std::floating_point T>
struct paired_values {
  T loss, d_chosen, d_rejected;
};
using paired_value = paired_values<real>;

template <std::floating_point T>
struct unpaired_values {
  T loss, d_policy, d_z;
};
using unpaired_value = unpaired_values<real>;

// A loss of the margin m = beta (a - b): the chain rule gives +beta f'(m) and -beta f'(m).
template <std::floating_point T>
paired_values<T> of_margin(T loss, T slope, T beta) {
  return {loss, beta * slope, -beta * slope};
}

// Rafailov et al. 2023; label smoothing as in Mitchell's cDPO note: -(1-e) log s(m) - e log s(-m).
template <std::floating_point T>
paired_values<T> dpo(T a, T b, T beta, T label_smoothing) {
  const T e = label_smoothing, m = beta * (a - b);
  const T loss = -(1 - e) * log_sigmoid(m) - e * log_sigmoid(-m);
  return of_margin<T>(loss, -(1 - e) * sigmoid(-m) + e * sigmoid(m), beta);
}

// Chowdhury et al. 2024: ((1-e) l(m) - e l(-m)) / (1 - 2e) with l(m) = -log s(m).
template <std::floating_point T>
paired_values<T> robust_dpo(T a, T b, T beta, T label_smoothing) {
  const T e = label_smoothing, m = beta * (a - b);
  const T loss = (-(1 - e) * log_sigmoid(m) + e * log_sigmoid(-m)) / (1 - 2 * e);
  return of_margin<T>(loss, (-(1 - e) * sigmoid(-m) - e * sigmoid(m)) / (1 - 2 * e), beta);
}

// Zhao et al. 2023 (SLiC), Liu et al. 2023 (RSO): max(0, 1 - m); the slope at the kink is 0.
template <std::floating_point T>
paired_values<T> hinge(T a, T b, T beta) {
  const T m = beta * (a - b);
  return of_margin<T>(std::max<T>(0, 1 - m), m < 1 ? -1 : 0, beta);
}

// Azar et al. 2023, eq. 17, on sums: (a - b - 1/(2 tau))^2.
template <std::floating_point T>
paired_values<T> ipo_sum(T a, T b, T tau) {
  const T residual = a - b - 1 / (2 * tau);
  return {square(residual), 2 * residual, -2 * residual};
}

// The same on means over scored tokens; an empty completion counts as one token.
template <std::floating_point T>
paired_values<T> ipo(T a, T b, T n_chosen, T n_rejected, T tau) {
  const T n_w = std::max<T>(1, n_chosen), n_l = std::max<T>(1, n_rejected);
  const T residual = a / n_w - b / n_l - 1 / (2 * tau);
  return {square(residual), 2 * residual / n_w, -2 * residual / n_l};
}

// Ethayarajh et al. 2024: w_D (1 - s(beta (r - z))) or w_U (1 - s(beta (z - r))).
template <std::floating_point T>
unpaired_values<T> kto(T r, bool desirable, T z, T beta, T desirable_weight, T undesirable_weight) {
  if (desirable) {
    const T u = beta * (r - z), g = beta * desirable_weight * sigmoid_slope(u);
    return {desirable_weight * sigmoid(-u), -g, g};
  }
  const T u = beta * (z - r), g = beta * undesirable_weight * sigmoid_slope(u);
  return {undesirable_weight * sigmoid(-u), g, -g};
}

template <std::floating_point T>
unpaired_values<T> kto_zero(T r, bool desirable, T beta, T desirable_weight, T undesirable_weight) {
  unpaired_values<T> value = kto<T>(r, desirable, 0, beta, desirable_weight, undesirable_weight);
  value.d_z = 0;
  return value;
}

}  // namespace oracle
