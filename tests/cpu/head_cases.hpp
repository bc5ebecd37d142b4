// Random problems for the head path, and their answers by the textbook: logits as a double sum, no
// tiles, no chunks, no workspace.

#pragma once

#include <prospect/head.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "cpu/logits.hpp"
#include "cpu/rows.hpp"
#include "random.hpp"

namespace testing {

struct head_shape {
  std::int64_t tokens, width, vocabulary;
  std::int64_t rank = 0;  ///< of an adapter; 0: there is none
};

template <class S>
struct head_case {
  using R = prospect::compute_t<S>;

  head_shape shape;
  logits_matrix<S> hidden, weight;
  logits_matrix<S> lora_a, lora_b;
  double lora_scale = 0.6;
  std::vector<S> bias;
  std::vector<std::int64_t> targets;
  std::vector<R> d_token;
  std::vector<R> d_entropy;  ///< if there are any
  prospect::head_options options;

  /// Some tokens are masked, their hidden states NaN; some have coefficient 0.
  head_case(random_source& random, head_shape s, bool with_bias, prospect::head_options o = {},
            double masked = 0.25)
      : shape{s},
        hidden{s.tokens, s.width, random.integer(0, 5), random.integer(0, 3)},
        weight{s.vocabulary, s.width, random.integer(0, 5), random.integer(0, 3)},
        lora_a{s.rank, s.width, 4, 1},
        lora_b{s.rank == 0 ? 0 : s.vocabulary, s.rank, 2, 3},
        options{o} {
    const double size = 2 / std::sqrt(static_cast<double>(s.width));
    for (std::int64_t v = 0; v < s.vocabulary; ++v) {
      weight.fill_row(v, [&](std::int64_t) { return random.normal(size); });
      if (with_bias) bias.push_back(stored<S>(random.normal(1)));
    }
    for (std::int64_t t = 0; t < s.tokens; ++t) {
      const bool scored = !random.chance(masked);
      hidden.fill_row(t, [&](std::int64_t) {
        return scored ? random.normal(1) : std::numeric_limits<double>::quiet_NaN();
      });
      targets.push_back(scored ? random.integer(0, s.vocabulary - 1) : prospect::ignored_target);
      d_token.push_back(random.chance(0.1) ? R(0) : static_cast<R>(random.normal(1)));
    }
    for (std::int64_t i = 0; i < lora_a.rows(); ++i) {
      lora_a.fill_row(i, [&](std::int64_t) { return random.normal(size); });
    }
    for (std::int64_t v = 0; v < lora_b.rows(); ++v) {
      lora_b.fill_row(v, [&](std::int64_t) {
        return random.normal(1 / std::sqrt(static_cast<double>(s.rank)));
      });
    }
  }

  prospect::lm_head<S> head() {
    if (shape.rank == 0) return {weight.view(), bias};
    return {weight.view(), bias, {lora_a.view(), lora_b.view(), lora_scale}};
  }
  bool scored(std::int64_t t) const {
    return targets[static_cast<std::size_t>(t)] != prospect::ignored_target &&
           (options.mask.empty() || options.mask[t]);
  }
  double temperature(std::int64_t t) const {
    const auto& inverse = options.inverse_temperatures;
    return inverse.empty() ? options.temperature
                           : options.temperature / static_cast<double>(inverse[t]);
  }
};

/// The answer to a case in double; an adapter is added to the weight.
struct head_answer {
  std::vector<double> log_prob, lse, entropy;
  std::vector<double> d_hidden;       ///< [tokens, width], from the coefficients
  std::vector<double> d_hidden_unit;  ///< of the log-probs
  std::vector<double> d_weight;       ///< [vocabulary, width]
  std::vector<double> d_bias;
  std::vector<double> d_lora_a, d_lora_b;

  template <class S>
  explicit head_answer(head_case<S>& c) {
    const auto [tokens, width, vocabulary, rank] = c.shape;
    const auto at = [](std::int64_t i) { return static_cast<std::size_t>(i); };
    const auto plain = [&](logits_matrix<S>& m) {
      std::vector<double> all;
      for (const S x : m.elements()) all.push_back(static_cast<double>(prospect::load(x)));
      return all;
    };
    const auto h = plain(c.hidden), a = plain(c.lora_a), b = plain(c.lora_b);
    auto w = plain(c.weight);
    for (std::int64_t v = 0; v < vocabulary; ++v) {
      for (std::int64_t r = 0; r < rank; ++r) {
        for (std::int64_t k = 0; k < width; ++k) {
          w[at(v * width + k)] += c.lora_scale * b[at(v * rank + r)] * a[at(r * width + k)];
        }
      }
    }
    log_prob.resize(at(tokens));
    lse.resize(at(tokens));
    entropy.resize(at(tokens));
    d_hidden.resize(at(tokens * width));
    d_hidden_unit.resize(at(tokens * width));
    d_weight.resize(at(vocabulary * width));
    d_bias.resize(at(vocabulary));
    std::vector<double> z(at(vocabulary)), slope(at(vocabulary)), d_logits(at(vocabulary));
    for (std::int64_t t = 0; t < tokens; ++t) {
      const std::int64_t target = c.targets[at(t)];
      if (!c.scored(t)) continue;
      for (std::int64_t v = 0; v < vocabulary; ++v) {
        double x = c.bias.empty() ? 0.0 : static_cast<double>(prospect::load(c.bias[at(v)]));
        for (std::int64_t k = 0; k < width; ++k) x += h[at(t * width + k)] * w[at(v * width + k)];
        const bool caps = std::isfinite(c.options.soft_cap);
        const double tanh = caps ? std::tanh(x / c.options.soft_cap) : 0.0;
        z[at(v)] = (caps ? c.options.soft_cap * tanh : x) / c.temperature(t);
        slope[at(v)] = (1 - tanh * tanh) / c.temperature(t);
      }
      const double highest = *std::max_element(z.begin(), z.end());
      double others = 0;
      for (std::int64_t v = 0; v < vocabulary; ++v) {
        if (v != target) others += std::exp(z[at(v)] - highest);
      }
      const double sum = others + std::exp(z[at(target)] - highest);
      lse[at(t)] = highest + std::log(sum);
      log_prob[at(t)] = std::min(0.0, z[at(target)] - lse[at(t)]);
      for (std::int64_t v = 0; v < vocabulary; ++v) {
        const double p = std::exp(z[at(v)] - lse[at(t)]);
        if (p > 0) entropy[at(t)] -= p * (z[at(v)] - lse[at(t)]);
        // 1 - p as a difference would have few digits where the model is confident.
        const double unit = (v == target ? others / sum : -p) * slope[at(v)];
        d_logits[at(v)] = static_cast<double>(c.d_token[at(t)]) * unit;
        for (std::int64_t k = 0; k < width; ++k) {
          d_hidden_unit[at(t * width + k)] += unit * w[at(v * width + k)];
        }
      }
      for (std::int64_t v = 0; v < vocabulary; ++v) {
        double d = d_logits[at(v)];
        if (!c.d_entropy.empty()) {
          const double l = z[at(v)] - lse[at(t)];
          d -= static_cast<double>(c.d_entropy[at(t)]) * std::exp(l) * (l + entropy[at(t)]) *
               slope[at(v)];
        }
        d_bias[at(v)] += d;
        for (std::int64_t k = 0; k < width; ++k) {
          d_hidden[at(t * width + k)] += d * w[at(v * width + k)];
          d_weight[at(v * width + k)] += d * h[at(t * width + k)];
        }
      }
    }
    d_lora_a.resize(a.size());
    d_lora_b.resize(b.size());
    for (std::int64_t v = 0; v < vocabulary; ++v) {
      for (std::int64_t r = 0; r < rank; ++r) {
        for (std::int64_t k = 0; k < width; ++k) {
          const double d = c.lora_scale * d_weight[at(v * width + k)];
          d_lora_a[at(r * width + k)] += b[at(v * rank + r)] * d;
          d_lora_b[at(v * rank + r)] += a[at(r * width + k)] * d;
        }
      }
    }
  }
};

/// Where the results go: poison, or numbers to be added to.
template <class S>
struct head_results {
  using R = prospect::compute_t<S>;

  std::vector<R> log_prob, entropy;
  std::vector<double> lse;
  logits_matrix<S> hidden;
  logits_matrix<R> weight;
  laid_out_row<R> bias;
  logits_matrix<R> lora_a, lora_b;

  explicit head_results(const head_shape& s)
      : log_prob(static_cast<std::size_t>(s.tokens), poison<R>()),
        entropy{log_prob},
        lse(log_prob.size(), poison<double>()),
        hidden{s.tokens, s.width, 2, 1},
        weight{s.vocabulary, s.width, 3, 2},
        bias{s.vocabulary, {.offset = 1, .stride = -2}},
        lora_a{s.rank, s.width, 1, 3},
        lora_b{s.rank == 0 ? 0 : s.vocabulary, s.rank, 3, 1} {}

  prospect::token_outputs<R> scores() {
    return {.log_prob = log_prob, .lse = lse, .entropy = entropy};
  }
  prospect::head_gradients<S> gradients(bool accumulate = false) {
    const bool adapted = lora_a.rows() > 0;
    return {.hidden = hidden.view(),
            .weight = weight.view(),
            .bias = bias.view(),
            .lora_a = adapted ? lora_a.view() : prospect::matrix_view<R>{},
            .lora_b = adapted ? lora_b.view() : prospect::matrix_view<R>{},
            .accumulate = accumulate};
  }
  bool same_as(head_results& other) {
    return same_bits(log_prob, other.log_prob) && same_bits(entropy, other.entropy) &&
           same_bits(lse, other.lse) && same_bits(hidden.elements(), other.hidden.elements()) &&
           same_bits(weight.elements(), other.weight.elements()) &&
           same_bits(bias.elements(), other.bias.elements()) &&
           same_bits(lora_a.elements(), other.lora_a.elements()) &&
           same_bits(lora_b.elements(), other.lora_b.elements());
  }
};

/// |got - want| / |want| by the Frobenius norm; infinite where anything is not a number.
template <class S>
double distance(const std::vector<S>& got, const std::vector<double>& want) {
  double difference = 0, size = 0;
  for (std::size_t i = 0; i < want.size(); ++i) {
    const double d = static_cast<double>(prospect::load(got.at(i))) - want[i];
    difference += d * d;
    size += want[i] * want[i];
  }
  if (std::isnan(difference)) return std::numeric_limits<double>::infinity();
  return std::sqrt(difference) / std::max(std::sqrt(size), 1e-3);
}

}  // namespace testing
