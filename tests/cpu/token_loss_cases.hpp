// Batches of tokens with everything in them, losses that need all of it, and what the textbook says
// they come to, in double and token by token.
#pragma once

#include <prospect/cpu/token_losses.hpp>
#include <prospect/losses/parts/kl.hpp>

#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string_view>
#include <vector>

#include "random.hpp"

namespace testing {

using prospect::averaging;
using prospect::dtype;

/// What the textbook is told about a token: log-ratios in nats, and what its sequence adds up to.
struct token_facts {
  double policy = 0, ratio = 0, reference_ratio = 0, advantage = 0, sum = 0, tokens = 1;
};
/// Value, slope in the policy, slope in the sum.
using token_answer = std::array<double, 3>;

/// The clipped surrogate, and a pull towards the reference by the square and by k3. `scalar` breaks
/// the promise to take several at once.
template <bool takes_several = true>
struct clipped_loss {
  averaging average = averaging::sequence_means;
  double pull = 0;
  static constexpr bool branch_free = takes_several;

  template <class T, class E = prospect::token_exponentials>
  PROSPECT_HD T operator()(const prospect::token<T>& t, const E& exponentials = {}) const {
    const T ratio = exp(t.log_ratio());
    const T plain = t.advantage * ratio, held = t.advantage * prospect::clamp(ratio, 0.75, 1.5);
    const T least = select(held.value < plain.value, held, plain);
    return prospect::term(
               pull, square(t.log_reference_ratio()) + prospect::kl_estimate_3(t, exponentials)) -
           least;
  }
  token_answer textbook(const token_facts& t) const {
    const double r = std::exp(t.ratio), a = t.advantage;
    const double held = std::min(std::max(r, 0.75), 1.5);
    const bool bounded = a * held < a * r;
    const double x = t.reference_ratio;
    return {-(bounded ? a * held : a * r) + pull * (x * x + std::expm1(-x) + x),
            -(bounded ? 0 : a * r) + pull * (2 * x - std::expm1(-x)), 0};
  }
  static std::array<double, 2> contribution_by_hand(const token_facts&) { return {0, 0}; }
};

/// Reads its sequence, by a contribution that is not linear, beside the token's own
/// log-probability.
struct summing_loss {
  averaging average = averaging::sequence_means;
  static constexpr bool branch_free = true;

  template <class T>
  PROSPECT_HD T contribution(const prospect::token<T>& t) const {
    return t.log_ratio() + 0.5 * square(t.log_ratio());
  }
  template <class T>
  PROSPECT_HD T operator()(const prospect::token<T>& t) const {
    return t.advantage * (exp(t.mean()) * t.policy);
  }
  token_answer textbook(const token_facts& t) const {
    const double e = std::exp(t.sum / t.tokens);
    return {t.advantage * e * t.policy, t.advantage * e, t.advantage * e * t.policy / t.tokens};
  }
  static std::array<double, 2> contribution_by_hand(const token_facts& t) {
    return {t.ratio + t.ratio * t.ratio / 2, 1 + t.ratio};
  }
};

/// Weights a log-probability by a ratio that is held.
struct detaching_loss {
  averaging average = averaging::tokens;
  static constexpr bool branch_free = true;

  template <class T, class E = prospect::token_exponentials>
  PROSPECT_HD T operator()(const prospect::token<T>& t, const E& exponentials = {}) const {
    return -t.advantage * exponentials.ratio(value_of(t.log_ratio())) * t.policy;
  }
  token_answer textbook(const token_facts& t) const {
    const double r = std::exp(t.ratio);
    return {-t.advantage * r * t.policy, -t.advantage * r, 0};
  }
  static std::array<double, 2> contribution_by_hand(const token_facts&) { return {0, 0}; }
};

/// A row of a type and a stride that are matters of run time.
class run_time_row {
 public:
  run_time_row() = default;
  run_time_row(dtype type, std::int64_t size, std::int64_t stride = 1)
      : type_{type}, size_{size}, stride_{stride}, room_(static_cast<std::size_t>(size * stride)) {}

  operator prospect::const_any_row() const { return {room_.data(), type_, size_, stride_}; }
  operator prospect::any_row() { return {room_.data(), type_, size_, stride_}; }
  double operator[](std::int64_t i) const { return prospect::const_any_row{*this}.get<double>(i); }
  void put(std::int64_t i, double x) { prospect::any_row{*this}.put(i, x); }
  dtype type() const { return type_; }
  bool given() const { return size_ > 0; }

 private:
  dtype type_ = dtype::f32;
  std::int64_t size_ = 0, stride_ = 1;
  std::vector<double> room_;  // aligned for any type
};

struct token_loss_case {
  std::int64_t rows = 0;
  std::vector<std::int64_t> begins, ends, targets;
  std::vector<std::uint8_t> mask;
  run_time_row policy, old, reference, advantage, token_advantage, weight, entropy;
  run_time_row loss, d_policy, d_entropy;
  double entropy_coef = 0;

  std::int64_t sequences() const { return static_cast<std::int64_t>(begins.size()); }
  bool scored(std::int64_t t) const {
    const auto at = static_cast<std::size_t>(t);
    return (targets.empty() || targets[at] != -100) && (mask.empty() || mask[at] != 0);
  }
  prospect::token_batch in() const {
    return {.policy = policy,
            .old = old,
            .reference = reference,
            .advantage = advantage,
            .token_advantage = token_advantage,
            .weight = weight,
            .entropy = entropy,
            .targets = targets,
            .mask = mask,
            .layout = prospect::sequence_layout::ranges(begins, ends),
            .entropy_coef = entropy_coef};
  }
  prospect::token_batch_outputs out() {
    return {.loss = loss, .d_policy = d_policy, .d_entropy = d_entropy};
  }
  bool in_fp64() const { return prospect::detail::in_fp64(in()); }

  token_facts facts(std::int64_t t, std::int64_t sequence) const {
    return {.policy = policy[t],
            .ratio = old.given() ? policy[t] - old[t] : 0,
            .reference_ratio = reference.given() ? policy[t] - reference[t] : 0,
            .advantage = token_advantage.given() ? token_advantage[t]
                         : advantage.given()     ? advantage[sequence]
                                                 : 0};
  }
};

/// What a batch comes to.
struct token_expectation {
  std::vector<double> loss, d_policy, d_entropy;
  double total = 0, loss_sum = 0, tokens = 0, sequences = 0;
  double ratio = 0, kl = 0, entropy = 0, advantages = 0, clipped = 0;
};

template <class Loss>
token_expectation by_hand(const Loss& loss, const token_loss_case& c,
                          const prospect::normaliser& by) {
  const auto n = static_cast<std::size_t>(c.rows);
  token_expectation want{.loss = std::vector<double>(n),
                         .d_policy = std::vector<double>(n),
                         .d_entropy = std::vector<double>(n)};
  const auto scored_of = [&](std::int64_t i) {
    std::vector<std::int64_t> at;
    for (std::int64_t t = c.begins[static_cast<std::size_t>(i)];
         t < c.ends[static_cast<std::size_t>(i)]; ++t) {
      if (c.scored(t)) at.push_back(t);
    }
    return at;
  };
  for (std::int64_t i = 0; i < c.sequences(); ++i) {
    const auto tokens = static_cast<double>(scored_of(i).size());
    want.tokens += tokens;
    want.sequences += tokens > 0;
  }
  const double factor = by.factor(loss.average == averaging::tokens ? want.tokens : want.sequences);
  for (std::int64_t i = 0; i < c.sequences(); ++i) {
    const auto at = scored_of(i);
    const auto length = static_cast<double>(at.size());
    double sum = 0, d_sum = 0;
    const auto facts = [&](std::int64_t t) {
      token_facts f = c.facts(t, i);
      f.sum = sum;
      f.tokens = length;
      return f;
    };
    const auto weight = [&](std::int64_t t) { return c.weight.given() ? c.weight[t] : 1; };
    double whole = 0;
    for (const std::int64_t t : at) whole += loss.contribution_by_hand(facts(t))[0];
    sum = whole;
    for (const std::int64_t t : at) d_sum += weight(t) * loss.textbook(facts(t))[2];
    const double share = loss.average == averaging::sequence_means ? 1 / length : 1;
    for (const std::int64_t t : at) {
      const auto k = static_cast<std::size_t>(t);
      const token_facts f = facts(t);
      const auto [value, slope, of_sum] = loss.textbook(f);
      const double bonus = c.entropy_coef == 0 ? 0 : c.entropy_coef * c.entropy[t];
      const double d = weight(t) * slope + loss.contribution_by_hand(f)[1] * d_sum;
      want.loss[k] = weight(t) * (value - bonus);
      want.d_policy[k] = factor * share * d;
      want.d_entropy[k] = -c.entropy_coef * factor * share * weight(t);
      want.loss_sum += share * want.loss[k];
      want.ratio += std::exp(f.ratio);
      want.kl += std::expm1(-f.reference_ratio) + f.reference_ratio;
      want.entropy += c.entropy.given() ? c.entropy[t] : 0;
      want.advantages += f.advantage;
      want.clipped += f.advantage != 0 && d == 0;
    }
  }
  want.total = factor * want.loss_sum;
  return want;
}

/// Rows that differ in type and stride, gaps between sequences, empty ones, and NaN wherever
/// nothing is scored.
inline token_loss_case random_tokens(random_source& random, bool fp64,
                                     const std::vector<std::int64_t>& lengths) {
  token_loss_case c;
  std::int64_t rows = random.integer(0, 3);
  for (const std::int64_t length : lengths) {
    c.begins.push_back(rows);
    c.ends.push_back(rows += length);
    if (random.chance(0.3)) rows += random.integer(1, 40);
  }
  c.rows = rows;
  const auto type = [&] {
    constexpr dtype narrow[] = {dtype::f32, dtype::f32, dtype::f16, dtype::bf16};
    return random.chance(0.2) && fp64 ? dtype::f64 : narrow[random.integer(0, 3)];
  };
  const auto row = [&](dtype of) { return run_time_row{of, rows, random.chance(0.7) ? 1 : 3}; };
  if (random.chance(0.6)) {
    c.targets.assign(static_cast<std::size_t>(rows), 7);
    for (auto& target : c.targets) target = random.chance(0.2) ? -100 : target;
  }
  if (random.chance(0.6)) {
    c.mask.assign(static_cast<std::size_t>(rows), 1);
    for (auto& m : c.mask) m = random.chance(0.2) ? 0 : m;
  }
  c.policy = row(fp64 ? dtype::f64 : type());
  if (random.chance(0.8)) c.old = row(type());
  if (random.chance(0.5)) c.reference = row(type());
  if (random.chance(0.5)) c.weight = row(type());
  if (random.chance(0.5)) c.entropy = row(type());
  if (c.entropy.given()) c.entropy_coef = random.chance(0.7) ? 0.125 : 0;
  if (random.chance(0.4)) c.token_advantage = row(type());
  if (!c.token_advantage.given()) c.advantage = {type(), c.sequences()};
  for (auto* out : {&c.loss, &c.d_policy, &c.d_entropy}) {
    *out = row(fp64 ? dtype::f64 : type());
    for (std::int64_t t = 0; t < rows; ++t) out->put(t, 77);
  }
  constexpr double nan = std::numeric_limits<double>::quiet_NaN();
  std::vector<bool> scored(static_cast<std::size_t>(rows));
  for (std::size_t i = 0; i < c.begins.size(); ++i) {
    if (c.advantage.given()) c.advantage.put(static_cast<std::int64_t>(i), random.normal(1));
    for (std::int64_t t = c.begins[i]; t < c.ends[i]; ++t) {
      scored[static_cast<std::size_t>(t)] = c.scored(t);
    }
  }
  for (std::int64_t t = 0; t < rows; ++t) {
    const bool is = scored[static_cast<std::size_t>(t)];
    const double p = -0.5 - std::abs(random.normal(2));
    c.policy.put(t, is ? p : nan);
    if (c.old.given()) c.old.put(t, is ? p + random.normal(0.4) : nan);
    if (c.reference.given()) c.reference.put(t, is ? p + random.normal(0.5) : nan);
    if (c.token_advantage.given()) c.token_advantage.put(t, is ? random.normal(1) : nan);
    if (c.weight.given())
      c.weight.put(t, !is ? nan : random.chance(0.1) ? 0 : random.uniform(0, 2));
    if (c.entropy.given()) c.entropy.put(t, is ? random.uniform(0, 5) : nan);
  }
  return c;
}

/// A plain batch of rows of one type, sequences of these lengths side by side.
inline token_loss_case plain_tokens(random_source& random, const std::vector<std::int64_t>& lengths,
                                    dtype type = dtype::f32) {
  token_loss_case c;
  for (const std::int64_t length : lengths) {
    c.begins.push_back(c.rows);
    c.ends.push_back(c.rows += length);
  }
  for (auto* row : {&c.policy, &c.old, &c.loss, &c.d_policy, &c.d_entropy}) {
    *row = {type, c.rows};
  }
  c.advantage = {type, c.sequences()};
  for (std::int64_t i = 0; i < c.sequences(); ++i) c.advantage.put(i, random.normal(1));
  for (std::int64_t t = 0; t < c.rows; ++t) {
    c.policy.put(t, -0.5 - std::abs(random.normal(2)));
    c.old.put(t, c.policy[t] + random.normal(0.3));
  }
  return c;
}

inline std::vector<double> numbers_of(const run_time_row& row, std::int64_t size) {
  std::vector<double> numbers;
  for (std::int64_t t = 0; t < size; ++t) numbers.push_back(row[t]);
  return numbers;
}

}  // namespace testing
