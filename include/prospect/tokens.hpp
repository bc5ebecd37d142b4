// What goes into the token phases and what comes out of them, on every back end: how logits become
// probabilities, the rows of results, and the coefficients that come back.
#pragma once

#include <prospect/core/mask_row.hpp>
#include <prospect/core/strict.hpp>
#include <prospect/core/strided_span.hpp>

#include <cmath>
#include <concepts>
#include <cstdint>
#include <limits>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2 {

/// A soft cap that caps nothing.
inline constexpr double no_cap = std::numeric_limits<double>::infinity();

/// How logits become a distribution, p = softmax(z) with
///
///   z = soft_cap tanh(x / soft_cap) inverse_temperatures[t] / temperature,
///
/// which part of the vocabulary the columns are, and which rows are scored. Gradients are with
/// respect to x.
///
/// Temperature, soft cap and the product of a row's two inverse temperatures lie inside
/// [1e-30, 1e30]. A soft cap far above all logits costs them digits: z is known to 1e-16 of it.
struct token_options {
  double temperature = 1;
  double soft_cap = no_cap;      ///< of the logits; `no_cap`: none
  std::int64_t first_token = 0;  ///< the token of column 0, where the vocabulary is split
  std::int64_t vocabulary = 0;   ///< its whole size; 0: the columns are all of it
  /// One for each row, positive and finite; empty: 1 for all.
  strided_span<const float> inverse_temperatures{};
  /// Rows where it is 0 are treated as if their target, which may be anything, were -100.
  mask_row mask{};
  /// Whether functions that write rows of a gradient also write 0 from the last column to the
  /// pitch: for hosts that multiply over the padding of a vocabulary. Otherwise what lies there is
  /// neither read nor written.
  bool zero_padding = false;
};

/// Per-token results of the forward pass; an empty row is not written. All of them come out of one
/// pass over the logits; asking for any below `lse` makes it somewhat slower.
template <std::floating_point R>
struct token_outputs {
  strided_span<R> log_prob{};     ///< log p(target), at most 0; 0 where the target is ignored
  strided_span<double> lse{};     ///< log sum e^z; fp64, because the gradient needs it
  strided_span<R> entropy{};      ///< of p, nats
  strided_span<R> sum_squares{};  ///< sum p^2, WPO's normaliser (Zhou et al. 2024, eq. 5)
  strided_span<R> mean_logit{};   ///< mean of z
  strided_span<std::uint8_t> target_is_argmax{};  ///< 1 or 0; of equal logits the first counts

  PROSPECT_HD bool statistics() const noexcept {
    return !entropy.empty() || !sum_squares.empty() || !mean_logit.empty() ||
           !target_is_argmax.empty();
  }
};

/// Coefficients of each token: the gradient of row t is, times dz/dx,
///
///   softmax[t] p - onehot[t] onehot(target) + d_entropy[t] dH/dz,   dH/dz_v = -p_v (log p_v + H).
///
/// With the first two equal to -dL/dlogp it is that of a preference loss. Adding 2 c lse to the
/// first is the gradient of a z-loss c lse^2; adding w to both mixes in a next-token loss of weight
/// w. An entropy bonus of weight c, -c mean(H) over N tokens, has d_entropy -c / N.
///
/// `d_entropy` goes with the entropies that the forward pass gave: either both are given or
/// neither. Where the coefficient is 0 the entropy is not read, and the row has the bits that it
/// has without. log p + H cancels where all tokens are about as probable: the error of this part is
/// a few ulp of d_entropy p (1 + |log p| + H), and d_entropy p times the error of H itself.
template <std::floating_point R>
struct token_coefficients {
  strided_span<const R> softmax;
  strided_span<const R> onehot;
  strided_span<const R> d_entropy{};  ///< dL/dH of the row's entropy
  strided_span<const R> entropy{};    ///< H, nats: of the whole row, where the vocabulary is split
};

/// Per-sequence sums; an empty row is not written.
struct sequence_outputs {
  strided_span<double> log_prob{};      ///< sum over scored tokens
  strided_span<std::int32_t> tokens{};  ///< number of scored tokens
};

/// From a stored logit x to the logit z of the distribution:
/// z = soft_cap tanh(x / soft_cap) / temperature. What is impossible (-inf) stays impossible.
struct logit_map {
  double inverse_temperature = 1;
  double soft_cap = no_cap;

  PROSPECT_HD bool caps() const noexcept { return soft_cap < no_cap; }
  PROSPECT_HD bool identity() const noexcept { return inverse_temperature == 1 && !caps(); }

  PROSPECT_HD double operator()(double x) const noexcept {
    const bool capped = caps() && x > -no_cap;
    return inverse_temperature * (capped ? soft_cap * std::tanh(x / soft_cap) : x);
  }
  /// The x of a z, and an infinity where no x is so high or so low.
  PROSPECT_HD double inverse(double z) const noexcept {
    const double capped = z / inverse_temperature;
    if (!caps()) return capped;
    if (capped <= -soft_cap) return -no_cap;
    return capped < soft_cap ? soft_cap * std::atanh(capped / soft_cap) : no_cap;
  }
  /// dz/dx; 1 - tanh^2 u = 4 e / (1 + e)^2 with e = e^(-2 |u|), which keeps its digits.
  PROSPECT_HD double slope(double x) const noexcept {
    if (!caps()) return inverse_temperature;
    const double e = std::exp(-2 * std::abs(x / soft_cap));
    return inverse_temperature * 4 * e / ((1 + e) * (1 + e));
  }
};

namespace detail {

/// Whether arithmetic on logits keeps its sense with such a factor: between the two nothing
/// overflows that would not without it.
PROSPECT_HD inline bool moderate(double factor) noexcept {
  return is_finite(factor) && factor >= 1e-30 && factor <= 1e30;
}

/// The coefficients of one row; the entropy is read where its coefficient is not 0.
template <std::floating_point R>
struct row_coefficients {
  R softmax, onehot;
  R d_entropy = 0, entropy = 0;

  PROSPECT_HD bool none() const noexcept { return softmax == 0 && onehot == 0 && d_entropy == 0; }
};

/// Those of all rows.
template <std::floating_point R>
struct coefficient_rows {
  token_coefficients<R> rows;
  R sign = 1;  ///< of the first two

  PROSPECT_HD row_coefficients<R> operator[](std::int64_t t) const noexcept {
    row_coefficients<R> c{.softmax = sign * rows.softmax[t], .onehot = sign * rows.onehot[t]};
    if (!rows.d_entropy.empty()) {
      c.d_entropy = rows.d_entropy[t];
      c.entropy = c.d_entropy == 0 ? R(0) : rows.entropy[t];
    }
    return c;
  }
};

/// Of a loss that gives each token's log-prob one coefficient.
template <std::floating_point R>
PROSPECT_INLINE coefficient_rows<R> loss_coefficients(strided_span<const R> d_token) noexcept {
  return {.rows = {.softmax = d_token, .onehot = d_token}, .sign = -1};
}

/// The map of every row: that of the options with the row's own inverse temperature.
struct row_maps {
  logit_map all;
  strided_span<const float> inverse_temperatures;

  PROSPECT_HD logit_map operator[](std::int64_t t) const noexcept {
    logit_map map = all;
    if (!inverse_temperatures.empty()) {
      map.inverse_temperature *= static_cast<double>(inverse_temperatures[t]);
    }
    return map;
  }
};

PROSPECT_HD inline row_maps maps_of(const token_options& o) noexcept {
  return {.all = {.inverse_temperature = 1 / o.temperature, .soft_cap = o.soft_cap},
          .inverse_temperatures = o.inverse_temperatures};
}

/// Which of the options that are no rows have no meaning for so many columns, or nullptr.
PROSPECT_INLINE const char* problem(const token_options& o, std::int64_t columns) noexcept {
  if (!moderate(o.temperature)) return "temperature must lie inside [1e-30, 1e30]";
  const bool caps = magnitude_bits(o.soft_cap) != infinity_bits<double> || o.soft_cap < 0;
  if (caps && !moderate(o.soft_cap)) {
    return "soft_cap must lie inside [1e-30, 1e30], or be no_cap";
  }
  if (o.vocabulary < 0) return "vocabulary is negative";
  if (o.first_token < 0) return "first_token is negative";
  const std::int64_t vocabulary = o.vocabulary == 0 ? columns : o.vocabulary;
  if (vocabulary < columns) return "vocabulary is smaller than the columns";
  if (o.first_token > vocabulary - columns) {
    return "first_token and the columns reach beyond the vocabulary";
  }
  return nullptr;
}

}  // namespace detail

}  // namespace prospect::inline v2
PROSPECT_STRICT_END
