// What an engine in the manner of llm.c has before it has a loss of preferences: plain pointers, a
// vocabulary padded to a round number, thumbs for its sequences, and a classifier that is given
// logits, leaves their gradient in their place and says -log p of every target. And the textbook in
// double, which the classifier is held against.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <limits>
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

struct shape {
  int B, T, V, Vp;  // sequences, their length, tokens, and columns of a row of logits
  int rows() const { return B * T; }
  int cells() const { return rows() * Vp; }
};

/// A micro-batch, in memory of the host or of a device.
struct buffers {
  shape s;
  int first;                  // sequences of the batch before these
  float* logits;              // [B, T, Vp]: becomes its own gradient
  float* losses;              // [B, T]: becomes -log p of the target, 0 where there is none
  const int* targets;         // [B, T]: -100 where nothing is learned
  const std::uint8_t* liked;  // [B]: thumbs
};

/// Liked sequences count upwards, the others downwards; what comes first is their prompt.
struct data {
  shape s;
  array<int> ids, targets;
  array<std::uint8_t> liked;

  explicit data(const shape& of) : s{of}, ids(s.rows()), targets(s.rows(), -100), liked(s.B) {
    for (int b = 0; b < s.B; ++b) {
      liked[b] = b % 2 == 0;
      const int end = s.T - b % 3;  // behind it there is padding
      for (int t = 0; t < s.T; ++t) {
        const auto token = [&](int at) { return (b + (liked[b] != 0 ? at : s.V - at)) % s.V; };
        if (t < end) ids[b * s.T + t] = token(t);
        if (t > 0 && t + 1 < end) targets[b * s.T + t] = token(t + 1);
      }
    }
  }
};

struct results {
  array<double> losses, d_logits;
};

/// KTO against a point of 0, without a library.
inline results textbook(const data& batch, const array<float>& logits,
                        const array<double>& reference, double beta, double sequences) {
  const shape& s = batch.s;
  results out{array<double>(s.rows()), array<double>(s.cells())};
  array<double> sum_of_exponentials(s.rows());
  for (int b = 0; b < s.B; ++b) {
    double log_p = 0;
    for (int i = b * s.T; i < (b + 1) * s.T; ++i) {
      if (batch.targets[i] < 0) continue;
      for (int v = 0; v < s.V; ++v)
        sum_of_exponentials[i] += std::exp(double{logits[i * s.Vp + v]});
      out.losses[i] =
          std::log(sum_of_exponentials[i]) - double{logits[i * s.Vp + batch.targets[i]]};
      log_p -= out.losses[i];
    }
    const double sign = batch.liked[b] != 0 ? 1 : -1, u = sign * beta * (log_p - reference[b]);
    const double d = -sign * beta / (2 + std::exp(u) + std::exp(-u)) / sequences;
    for (int i = b * s.T; i < (b + 1) * s.T; ++i) {
      for (int v = 0; v < s.V && batch.targets[i] >= 0; ++v) {
        const double p = std::exp(double{logits[i * s.Vp + v]}) / sum_of_exponentials[i];
        out.d_logits[i * s.Vp + v] = d * ((v == batch.targets[i] ? 1 : 0) - p);
      }
    }
  }
  return out;
}

/// Logits that nobody may read where nothing is learned, nor in the padding.
inline array<float> hostile_logits(const data& batch) {
  const shape& s = batch.s;
  array<float> logits(s.cells());
  for (int i = 0; i < s.cells(); ++i) {
    const bool read = i % s.Vp < s.V && batch.targets[i / s.Vp] >= 0;
    logits[i] =
        read ? 3 * std::sin(0.7F * static_cast<float>(i)) : std::numeric_limits<float>::quiet_NaN();
  }
  return logits;
}

/// Whether what the classifier has left is the textbook's, and the padding exactly 0.
inline bool agrees(const shape& s, const results& exact, const array<float>& d_logits,
                   const array<float>& losses) {
  double off = 0;
  bool padding = true;
  for (int i = 0; i < s.cells(); ++i) {
    off += std::fabs(exact.d_logits[i] - double{d_logits[i]});  // a NaN stays
    padding = padding && (i % s.Vp < s.V || d_logits[i] == 0);
  }
  for (int i = 0; i < s.rows(); ++i) off += std::fabs(exact.losses[i] - double{losses[i]}) / 10;
  const bool right = off < 1e-5 && padding;
  std::printf("classifier: %.1e from the textbook in all, padding %s: %s\n", off,
              padding ? "0" : "not 0", right ? "right" : "WRONG");
  return right;
}

}  // namespace engine
