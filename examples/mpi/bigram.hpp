// What there is without a loss: a bigram language model, which is a table of logits, and data as
// KTO wants it, thumbs for what the table in the beginning has written. Nothing of Prospect here.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace bigram {

inline constexpr std::int64_t vocabulary = 32;
inline constexpr std::int64_t length = 12;  ///< tokens of a completion

/// The same numbers on every machine.
class random_source {
 public:
  explicit random_source(std::uint64_t seed) : state_{seed} {}
  /// In [0, 1). (The generator is splitmix64.)
  double uniform() {
    std::uint64_t x = state_ += 0x9e3779b97f4a7c15U;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9U;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebU;
    return static_cast<double>((x ^ (x >> 31)) >> 11) * 0x1p-53;
  }
  std::int32_t below(std::int64_t n) {
    return static_cast<std::int32_t>(uniform() * static_cast<double>(n));
  }

 private:
  std::uint64_t state_;
};

/// logits[u * vocabulary + v] of token v behind token u.
using table = std::vector<double>;

inline std::size_t entry(std::int32_t u, std::int64_t v) {
  return static_cast<std::size_t>(u * vocabulary + v);
}
inline table random_table(random_source& random) {
  table logits(static_cast<std::size_t>(vocabulary * vocabulary));
  for (double& x : logits) x = 2 * random.uniform() - 1;
  return logits;
}

/// What people like: the next token up to a third of the vocabulary further on.
inline bool liked(std::int32_t u, std::int32_t v) {
  return (v - u + vocabulary) % vocabulary < vocabulary / 3;
}

inline double weight(const table& logits, std::int32_t u, std::int32_t v) {
  return std::exp(logits[entry(u, v)]);
}
inline std::int32_t draw(const table& logits, std::int32_t u, random_source& random) {
  double total = 0;
  for (std::int32_t v = 0; v < vocabulary; ++v) total += weight(logits, u, v);
  double left = total * random.uniform();
  for (std::int32_t v = 0; v + 1 < vocabulary; ++v) {
    left -= weight(logits, u, v);
    if (left < 0) return v;
  }
  return vocabulary - 1;
}
/// How probable a liked token is, on average over what stands before it.
inline double quality(const table& logits) {
  double all = 0;
  for (std::int32_t u = 0; u < vocabulary; ++u) {
    double total = 0, good = 0;
    for (std::int32_t v = 0; v < vocabulary; ++v) {
      total += weight(logits, u, v);
      good += liked(u, v) ? weight(logits, u, v) : 0;
    }
    all += good / total;
  }
  return all / static_cast<double>(vocabulary);
}

/// n completions: behind token previous[t] comes targets[t].
struct completions {
  std::vector<std::int32_t> previous, targets;

  std::int64_t tokens() const { return static_cast<std::int64_t>(targets.size()); }
};

/// A share of a batch: completions with thumbs, and each prompt with another one's completion,
/// which is what KTO's reference point is estimated from.
struct shard {
  completions own, mismatched;
  std::vector<std::uint8_t> desirable;
};

inline shard write_shard(const table& writer, std::int64_t n, random_source& random) {
  shard s;
  for (std::int64_t i = 0; i < n; ++i) {
    std::int32_t u = random.below(vocabulary);
    std::int64_t good = 0;
    for (std::int64_t k = 0; k < length; ++k) {
      const std::int32_t v = draw(writer, u, random);
      s.own.previous.push_back(u);
      s.own.targets.push_back(v);
      good += liked(u, v) ? 1 : 0;
      u = v;
    }
    s.desirable.push_back(3 * good > length ? 1 : 0);
  }
  // Rotated by one: the first token of row i's prompt, then the completion of row i + 1.
  s.mismatched = s.own;
  std::rotate(s.mismatched.targets.begin(), s.mismatched.targets.begin() + length,
              s.mismatched.targets.end());
  for (std::size_t t = 0; t < s.own.targets.size(); ++t) {
    if (t % length != 0) s.mismatched.previous[t] = s.mismatched.targets[t - 1];
  }
  return s;
}

/// Logits [tokens, vocabulary].
inline std::vector<float> forward(const table& model, const completions& c) {
  std::vector<float> logits;
  for (const std::int32_t u : c.previous) {
    for (std::int64_t v = 0; v < vocabulary; ++v) {
      logits.push_back(static_cast<float>(model[entry(u, v)]));
    }
  }
  return logits;
}

/// Adds the gradient of the logits to that of the table.
inline void backward(const std::vector<float>& d_logits, const completions& c, double* gradient) {
  const float* d = d_logits.data();
  for (const std::int32_t u : c.previous) {
    for (std::int64_t v = 0; v < vocabulary; ++v)
      gradient[entry(u, v)] += static_cast<double>(*d++);
  }
}

}  // namespace bigram
