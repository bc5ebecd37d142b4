// What a host's file, compiled with whatever flags it likes, computes with the library. Pointers
// and sizes only, because the other file is compiled without those flags.
#pragma once

#include <cstdint>

namespace host {

/// The formulas of one number that host.cpp has made of the primitives.
enum formula {
  exp,
  expm1,
  log,
  log1p,
  sigmoid,
  softplus,
  log_sigmoid,
  log1mexp,
  tanh,
  sqrt,
  abs,
  relu,
  square,
  clamp,
  pow_tenth,
  pow_cube,
  pow_2_to_the,
  pow_both,
  quotient,
  formulas
};

struct results {
  double nonfinite = 0;
  std::int64_t first_nonfinite = -1;
};

/// The formula of n numbers by itself, where it is written.
void by_itself(int which, const float* x, int n, float* value);
/// As a loss of the chosen log-ratio: given several examples at once, or one after the other.
results as_loss(int which, bool branch_free, const float* x, int n, float* value, float* slope);
results as_loss(int which, const double* x, int n, double* value, double* slope);

/// dpo, ipo: n pairs of chosen and rejected log-ratios; kto: n log-ratios, alternately desirable.
results dpo(const float* chosen, const float* rejected, int n, float* loss, float* d_chosen);
results ipo(const float* chosen, const float* rejected, int n, float* loss, float* d_chosen);
results kto(const float* ratio, int n, double z, float* loss, float* d_policy);

struct scores {
  float log_prob, entropy, sum_squares, mean_logit;
  double lse;
  std::uint8_t target_is_argmax;
};
/// One row of logits, its scores, and the gradient of its log-prob.
scores token(const float* logits, std::int64_t columns, std::int64_t target, float* gradient);
/// The same of 2 columns' parts of a split vocabulary.
scores split_token(const float* logits, std::int64_t columns, std::int64_t target);

}  // namespace host
