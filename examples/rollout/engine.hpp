// What an engine of reinforcement learning has before it knows of losses: a policy that samples and
// is differentiated through its own softmax, rollouts, a reward. And the textbook in double, whose
// differences the gradient is held against.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

namespace engine {

/// A row that is counted in int, as everything here is.
template <class T>
struct array {
  std::vector<T> values;

  explicit array(int n, T x = {}) : values(static_cast<std::size_t>(n), x) {}
  T* data() { return values.data(); }
  const T* data() const { return values.data(); }
  T& operator[](int i) { return values[static_cast<std::size_t>(i)]; }
  const T& operator[](int i) const { return values[static_cast<std::size_t>(i)]; }
  int size() const { return static_cast<int>(values.size()); }
};

/// A step samples `group` completions of up to T tokens for every prompt. Token 0 ends one.
struct shape {
  static constexpr int prompts = 4, group = 12, T = 6, V = 8;
  static constexpr int sequences = prompts * group, tokens = sequences * T;
  static constexpr int weights = prompts * V * V;
};

/// [sequences, T], the completions of a prompt one after the other.
struct rollouts {
  array<int> token{shape::tokens};
  array<float> old_log_prob{shape::tokens};
  array<std::uint8_t> mask{shape::tokens};
  array<float> reward{shape::sequences};

  /// The row of the policy that token i was sampled from: its prompt's, for the token before it.
  int row(int i) const {
    const int p = i / (shape::group * shape::T);
    return (p * shape::V + (i % shape::T == 0 ? p + 1 : token[i - 1])) * shape::V;
  }
};

/// Of one row of logits.
template <class R>
R log_softmax(const R* row, int v) {
  R sum = 0;
  for (int u = 0; u < shape::V; ++u) sum += std::exp(row[u]);
  return row[v] - std::log(sum);
}

struct policy {
  array<float> table{shape::weights};
  std::uint32_t state = 1;

  float uniform() {
    state = state * 1664525U + 1013904223U;
    return static_cast<float>(state >> 8U) * 0x1p-24F;
  }
  /// Rewarded is every token that is as far from the one before it as the prompt says.
  rollouts sample() {
    rollouts r;
    for (int i = 0; i < shape::tokens; ++i) {
      const int s = i / shape::T, p = s / shape::group;
      if (i % shape::T > 0 && (r.mask[i - 1] == 0 || r.token[i - 1] == 0)) continue;
      const float* row = table.data() + r.row(i);
      float left = uniform();
      int v = 0;
      while (v + 1 < shape::V && (left -= std::exp(log_softmax(row, v))) > 0) ++v;
      r.mask[i] = 1;
      r.token[i] = v;
      r.old_log_prob[i] = log_softmax(row, v);
      const int before = i % shape::T == 0 ? p + 1 : r.token[i - 1];
      if (v == 1 + (before + p) % (shape::V - 1)) r.reward[s] += 1.0F / shape::T;
    }
    return r;
  }
  /// What is not sampled has no log-probability: whoever reads it there will notice.
  array<float> log_probs(const rollouts& r) const {
    array<float> log_prob(shape::tokens, std::nanf(""));
    for (int i = 0; i < shape::tokens; ++i) {
      if (r.mask[i] != 0) log_prob[i] = log_softmax(table.data() + r.row(i), r.token[i]);
    }
    return log_prob;
  }
  /// From dL/dlogp to the gradient of the table, through the softmax.
  array<float> backward(const rollouts& r, const array<float>& d_log_prob) const {
    array<float> d(table.size());
    for (int i = 0; i < shape::tokens; ++i) {
      const float* row = table.data() + r.row(i);
      for (int v = 0; v < shape::V && d_log_prob[i] != 0; ++v) {
        const float p = std::exp(log_softmax(row, v));
        d[r.row(i) + v] += d_log_prob[i] * ((v == r.token[i] ? 1 : 0) - p);
      }
    }
    return d;
  }
};

/// The published formulas. `at` is the table where the gradient is taken: CISPO's weights do not
/// move with `table`.
inline double textbook(const std::string& loss, const array<double>& table, const array<double>& at,
                       const rollouts& r) {
  double total = 0, tokens = 0;
  for (int s = 0; s < shape::sequences; ++s) {
    const float* group = r.reward.data() + s / shape::group * shape::group;
    double mean = 0, squares = 0;
    for (int i = 0; i < shape::group; ++i) mean += double{group[i]} / shape::group;
    for (int i = 0; i < shape::group; ++i) squares += std::pow(group[i] - mean, 2);
    double advantage = double{r.reward[s]} - mean;
    if (loss != "dr_grpo") advantage /= std::sqrt(squares / (shape::group - 1)) + 1e-4;

    double sum = 0, length = 0;
    for (int i = s * shape::T; i < (s + 1) * shape::T; ++i) {
      if (r.mask[i] == 0) continue;
      length += 1;
      const double log_p = log_softmax(table.data() + r.row(i), r.token[i]);
      if (loss == "cispo") {
        const double then = log_softmax(at.data() + r.row(i), r.token[i]);
        sum -= std::min(5.0, std::exp(then - double{r.old_log_prob[i]})) * advantage * log_p;
      } else {
        const double ratio = std::exp(log_p - double{r.old_log_prob[i]});
        const double clipped = std::clamp(ratio, 0.8, loss == "dapo" ? 1.28 : 1.2);
        sum -= std::min(advantage * ratio, advantage * clipped);
      }
    }
    tokens += length;
    if (loss == "grpo") sum /= length * shape::sequences;
    if (loss == "dr_grpo") sum /= shape::T * shape::sequences;
    total += sum;
  }
  return loss == "dapo" || loss == "cispo" ? total / tokens : total;
}

}  // namespace engine
