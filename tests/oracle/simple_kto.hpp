// HALOs' SimpleKTO on a whole batch: each class is measured against the OTHER class's mean
// log-ratio, clamped at zero, with the gradient flowing through that mean. The clamp passes the
// gradient at exactly zero, which is where every run starts.

#pragma once

#include <cstddef>
#include <vector>

#include "scalar.hpp"

namespace oracle {

struct simple_kto_batch {
  std::vector<real> desirable, undesirable;  // log-ratios, nats
};

struct simple_kto_value {
  real loss = 0;                             // mean over all rows
  std::vector<real> desirable, undesirable;  // unreduced losses
  std::vector<real> d_desirable, d_undesirable;
};

inline real mean_of(const std::vector<real>& values) {
  real sum = 0;
  for (const real value : values) sum += value;
  return values.empty() ? 0 : sum / static_cast<real>(values.size());
}

// An absent class offers no baseline: the other one is then measured against zero.
inline simple_kto_value simple_kto(const simple_kto_batch& batch, real beta,
                                   real desirable_weight = 1, real undesirable_weight = 1) {
  const auto& a = batch.desirable;
  const auto& b = batch.undesirable;
  const real mean_a = mean_of(a), mean_b = mean_of(b);
  const real z_a = mean_a > 0 ? mean_a : 0, z_b = mean_b > 0 ? mean_b : 0;
  const real rows = static_cast<real>(a.size() + b.size());

  simple_kto_value out;
  real push_a = 0, push_b = 0;  // what each class's losses push into the other class's mean
  for (const real r : a) {
    const real u = beta * (r - z_b);
    out.desirable.push_back(desirable_weight * sigmoid(-u));
    push_b += desirable_weight * beta * sigmoid_slope(u);
  }
  for (const real r : b) {
    const real v = beta * (z_a - r);
    out.undesirable.push_back(undesirable_weight * sigmoid(-v));
    push_a += undesirable_weight * beta * sigmoid_slope(v);
  }
  for (const real r : a) {
    const real own = -desirable_weight * beta * sigmoid_slope(beta * (r - z_b));
    const real shared = mean_a >= 0 ? -push_a / static_cast<real>(a.size()) : 0;
    out.d_desirable.push_back((own + shared) / rows);
  }
  for (const real r : b) {
    const real own = undesirable_weight * beta * sigmoid_slope(beta * (z_a - r));
    const real shared = mean_b >= 0 ? push_b / static_cast<real>(b.size()) : 0;
    out.d_undesirable.push_back((own + shared) / rows);
  }
  for (const real loss : out.desirable) out.loss += loss / rows;
  for (const real loss : out.undesirable) out.loss += loss / rows;
  return out;
}

}  // namespace oracle
