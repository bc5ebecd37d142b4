// Backward over one row of logits: softmax as e^(z - lse), with every digit of the difference, so
// that even e^-80 keeps its relative accuracy; or from the forward pass's own exponentials, where
// the row has kept them. Softmax and the gradient of the entropy are one number per column:
//
//   a p - c p (log p + H) = p (a - c (z - E[z])),   E[z] = lse - H.
#pragma once

#include <prospect/cpu/detail/row_sums.hpp>

#include <algorithm>
#include <cmath>
#include <limits>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cpu::detail {
inline namespace PROSPECT_CPU_ISA {

/// out = f(x), tile by tile; `out` is x, or another row.
template <storage S, class F>
PROSPECT_INLINE void transform_row(const S* x, S* out, std::int64_t count, const F& f) {
  using R = compute_t<S>;
  std::int64_t i = 0;
  for (; i + tile_size<R> <= count; i += tile_size<R>) {
    prefetch_ahead(x + i);
    store_changed_tile(out + i, f(load_tile_to_change(x + i)));
  }
  if (i < count) store_part(out + i, f(load_part(x + i, count - i, R(0))), count - i);
}

/// Softmax as it is.
struct untilted {
  template <class Numbers, class Z>
  PROSPECT_INLINE Numbers operator()(Numbers p, const Z&) const {
    return p;
  }
};

/// p (a - c (z - mean)). What is `farthest` below the mean, or at -inf, has no probability: 0 of it
/// is to be left, and no NaN.
template <std::floating_point R>
class tilted {
 public:
  tilted(R a, R c, double mean)
      : a_{every_lane<numbers<R>>(a)},
        c_{every_lane<numbers<R>>(c)},
        mean_{every_lane<numbers<R>>(few_digits_below<R>(mean))},
        rest_{every_lane<numbers<R>>(static_cast<R>(mean - few_digits_below<R>(mean)))} {}

  PROSPECT_INLINE numbers<R> operator()(numbers<R> p, numbers<R> z) const {
    return p * weight((z - mean_) - rest_);
  }
  PROSPECT_INLINE numbers<R> operator()(numbers<R> p, const mapped<R>& z) const {
    return p * weight((z.high - mean_) + (z.low - rest_));
  }

 private:
  static constexpr R farthest = -4096;

  PROSPECT_INLINE numbers<R> weight(numbers<R> d) const {
    return a_ - c_ * larger(every_lane<numbers<R>>(farthest), d);
  }

  numbers<R> a_, c_, mean_, rest_;
};

/// Writes factor softmax(z) dz/dx over a row, or into another one; tilted, or not.
template <storage S, class Map, class Tilt>
void write_softmax(const S* x, S* out, std::int64_t count, double lse, compute_t<S> factor,
                   const Map& map, const Tilt& tilt) {
  using R = compute_t<S>;
  const auto write = [&](const auto& e) __attribute__((always_inline)) {
    transform_row(
        x, out, count, [&](tile<R> t) __attribute__((always_inline)) {
          unrolled<ways>([&](int w) __attribute__((always_inline)) {
            if constexpr (Map::identity) {
              t.way[w] = tilt(e(t.way[w]), t.way[w]);
            } else {
              const mapped<R> z = map.template operator()<R>(t.way[w]);
              t.way[w] = tilt(e(z), z);
            }
          });
          return t;
        });
  };
  // What a row is relative to is lower where the factor would leave the range otherwise.
  const double room = std::abs(factor) > (std::numeric_limits<R>::max)() / 4 ? 1 : 0;
  if constexpr (whole_powers<S, Map>) {
    using e = whole_power_exponential<S>;
    const double power = e::power_near(lse - room);
    const R left = static_cast<R>(factor * std::exp(power / e::log2_e - lse));
    if (std::abs(lse) < e::limit && is_finite(left) && left != 0) return write(e{left, power});
  }
  // e^(z - lse) = e^(z - anchor) e^(anchor - lse)
  const R anchor = few_digits_below<R>(lse - room);
  write(Map::identity
            ? exact_exponential<S>{static_cast<R>(factor * std::exp(anchor - lse)), anchor, R(0)}
            : exact_exponential<S>{static_cast<R>(factor * map.steepest()), anchor,
                                   static_cast<R>(lse - anchor)});
}
template <storage S, class Tilt>
void write_softmax(const S* x, S* out, std::int64_t count, double lse, compute_t<S> factor,
                   const logit_map& map, const Tilt& tilt) {
  if (map.identity()) {
    write_softmax(x, out, count, lse, factor, unmapped{}, tilt);
  } else {
    write_softmax(x, out, count, lse, factor, mapped_logits{map}, tilt);
  }
}

/// a p - b at the target itself: from 1 - p where the model is confident, because as a difference
/// it would lose its digits; from its logit z where it is not, because log p in fp32 has too few.
inline double gradient_at_target(double z, double log_prob, double lse, double a, double b) {
  return log_prob < -0.5 ? a * std::exp(z - lse) - b : (a - b) + a * std::expm1(log_prob);
}

/// -p (log p + H) there, by the same choice.
inline double entropy_gradient_at_target(double z, double log_prob, double lse, double entropy) {
  const double l = log_prob < -0.5 ? z - lse : log_prob;
  const double p = std::exp(l);
  return p == 0 ? 0.0 : -p * (l + entropy);  // of a token that cannot be, too
}

/// Writes the gradient that the coefficients ask for, times dz/dx, over a row or into another one.
template <storage S>
void gradient_row(const S* x, S* out, std::int64_t count, std::int64_t target, double log_prob,
                  double lse, const prospect::detail::row_coefficients<compute_t<S>>& by,
                  const logit_map& map) {
  using R = compute_t<S>;
  const R a = by.softmax;
  const R b = by.onehot;
  const R c = by.d_entropy;
  if (!is_finite(lse) || is_nan(a) || is_nan(b) || is_nan(c) || !is_finite(by.entropy)) {
    for (std::int64_t j = 0; j < count; ++j) out[j] = store<S>(std::numeric_limits<R>::quiet_NaN());
    return;
  }
  const double logit = target < 0 ? 0.0 : static_cast<double>(load(x[target]));
  if (c == 0) {
    write_softmax(x, out, count, lse, a, map, untilted{});
  } else {
    // The larger coefficient becomes part of the exponential, where a tiny one keeps its digits.
    const R factor = (std::max)(std::abs(a), std::abs(c));
    write_softmax(x, out, count, lse, factor, map,
                  tilted<R>{a / factor, c / factor, lse - by.entropy});
  }
  if (target >= 0) {
    const double z = map(logit);
    double there = gradient_at_target(z, log_prob, lse, a, b);
    if (c != 0) there += c * entropy_gradient_at_target(z, log_prob, lse, by.entropy);
    out[target] = store<S>(static_cast<R>(map.slope(logit) * there));
  }
}

/// Multiplies a row by a number. What is smaller than the smallest normal number becomes 0.
template <storage S>
void scale_row(S* x, std::int64_t count, compute_t<S> factor) {
  using R = compute_t<S>;
  if (is_nan(factor)) factor = std::numeric_limits<R>::quiet_NaN();  // whatever its payload
  const auto by = every_lane<numbers<R>>(factor);
  const auto least =
      every_lane<numbers<R>>(is_nan(factor) ? R(0) : smallest_normal<R> / std::abs(factor));
  transform_row(
      x, x, count, [&](tile<R> t) __attribute__((always_inline)) {
        unrolled<ways>([&](int w) __attribute__((always_inline)) {
          t.way[w] = product_unless_below(without_sign(t.way[w]), least, t.way[w], by);
        });
        return t;
      });
}

/// Makes a piece of a row that keeps its exponentials what it is times `factor`, which may be too
/// small for R where a product is not.
template <storage S>
void scale_kept(S* x, std::int64_t count, double factor) {
  using R = compute_t<S>;
  constexpr double raised = 0x1p64;
  if (std::abs(factor) >= smallest_normal<R>) {
    scale_row<S>(x, count, static_cast<R>(factor));
  } else if (std::abs(factor) * raised >= smallest_normal<R>) {
    scale_row<S>(x, count, static_cast<R>(factor * raised));
    scale_row<S>(x, count, static_cast<R>(1 / raised));
  } else {
    std::fill(x, x + count, store<S>(R(0)));
  }
}

/// What `gradient_row` writes, from the row that `sum_row_keeping` left.
template <storage S>
void gradient_of_kept_row(S* x, std::int64_t count, std::int64_t target, double log_prob,
                          double lse, compute_t<S> a, compute_t<S> b, const logit_map& map,
                          const kept_exponentials& kept) {
  using R = compute_t<S>;
  if (kept.pieces == 0 || !is_finite(lse) || is_nan(a) || is_nan(b)) {
    return gradient_row<S>(x, x, count, target, log_prob, lse, {.softmax = a, .onehot = b}, map);
  }
  const double z = target < 0 ? 0.0 : static_cast<double>(load(x[target]));
  for (int i = 0; i < kept.pieces; ++i) {
    const std::int64_t size = (i + 1 < kept.pieces ? kept.first[i + 1] : count) - kept.first[i];
    scale_kept(x + kept.first[i], size,
               exp_constants<R>::underneath * a * std::exp(kept.shift[i] - lse));
  }
  for (std::int64_t j = 0; j < kept.first[0]; ++j) x[j] = store<S>(R(0));
  if (target >= 0) {
    x[target] = store<S>(static_cast<R>(gradient_at_target(z, log_prob, lse, a, b)));
  }
}

}  // namespace PROSPECT_CPU_ISA
}  // namespace prospect::inline v2::cpu::detail
PROSPECT_STRICT_END
