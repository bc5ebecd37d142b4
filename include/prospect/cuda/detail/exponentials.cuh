// What softmax is computed with on a device: exponentials of differences of logits, fast ones for
// sums and exact ones for gradients; and how a logit x becomes the z of the distribution.
#pragma once

#include <prospect/core/precise.hpp>
#include <prospect/tokens.hpp>

#include <cmath>
#include <limits>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cuda::detail {

// std::numeric_limits has host functions only.
inline constexpr float infinity = std::numeric_limits<float>::infinity();
inline constexpr float not_a_number = std::numeric_limits<float>::quiet_NaN();

inline constexpr float log2_e = 1.44269504F;
/// What rounding took from log2(e), and log(2).
inline constexpr float log2_e_low = 1.92596303e-8F;
inline constexpr float log_2 = 0.693147181F;
inline constexpr double exact_log_2 = 0.693147180559945309417;

/// 2^t to 2 ulp, by the hardware; what is below the normal numbers is 0.
__device__ inline float power_of_2(float t) {
  float power;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(t));
  return power;
}

/// e^d for a sum: the error grows with |d|, as the term itself fades.
__device__ inline float exponential(float d) { return power_of_2(d * log2_e); }

/// factor e^(d + lost) to a few ulp where e^d is a normal number, where `lost` is what rounding
/// took from d.
__device__ inline float exact_exponential(float factor, float d, float lost) {
  const float t = d * log2_e;
  const float rest = fmaf(d, log2_e, -t) + fmaf(d, log2_e_low, lost * log2_e);
  const float y = factor * power_of_2(t);
  return fmaf(y, rest * log_2, y);
}

/// What a softmax is taken with: factor e^(z - lse), 2^raised times too large.
struct softmax_terms {
  double lse;
  float factor;
  int raised = 0;

  /// By how many powers of 2 an exponent is to be higher, so that nothing underflows before it has
  /// met a factor above 1. Not where z has no digits for them.
  __device__ int exponent() const {
    if (!(fabs(lse) < 65536)) return 0;
    const float size = fabsf(factor);
    return raised + (size > 1 && size < infinity ? ilogbf(size) + 1 : 0);
  }
};

/// The larger one, NaN if any is.
__device__ inline float larger(float a, float b) {
  float result;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(result) : "f"(a), "f"(b));
  return result;
}

/// A number that stands for another: a few digits, so that what z - it loses to rounding is
/// little and can be had exactly. Not above x from 2^16 on, where logits have no more digits
/// themselves.
__device__ inline float few_digits(double x) {
  if (fabs(x) < 65536) return static_cast<float>(rint(256 * x) / 256);
  const float nearest = __double2float_rn(x);
  return nearest > x ? nextafterf(nearest, -infinity) : nearest;
}

/// Most models' map: nothing to do, z = x.
struct unmapped {
  /// How many words a lane holds at a time: enough to keep the memory busy, twice as many where
  /// nothing is written.
  static constexpr int words_in_flight = 4;
  static constexpr int words_summed = 8;

  template <class F>
  __device__ auto of_row(std::int64_t, const F& f) const {
    return f(*this);
  }

  struct difference {
    float reference;  ///< a logit

    __device__ float operator()(float x) const { return x - reference; }
  };
  /// z(x) - z(highest), where x is not higher.
  __device__ difference below(float highest) const { return {highest}; }

  struct power {
    float shift;

    __device__ float operator()(float x) const { return power_of_2(fmaf(x, log2_e, -shift)); }
  };
  /// f(e) of a function e(x) that is some factor above e^(z(x) - z(highest)), with one rounding in
  /// its exponent. Returns what brings a sum of them back.
  template <class F>
  __device__ double with_powers(float highest, const F& f) const {
    if (fabsf(highest) < 65536) {
      const float shift = highest * log2_e;
      f(power{shift});
      const double y = static_cast<double>(fmaf(highest, log2_e, -shift)) * exact_log_2;
      return 1 + y * (-1 + y * 0.5);
    }
    // The rounding of such a shift would be more than a factor.
    f([d = below(highest)](float x) { return exponential(d(x)); });
    return 1;
  }
  __device__ double z(float x) const { return x; }
  __device__ double slope(float) const { return 1; }

  /// factor e^(z - lse) dz/dx to fp32.
  struct exact_softmax {
    static constexpr int words_in_flight = unmapped::words_in_flight;

    float factor, anchor, lowest;

    __device__ float operator()(float x) const {
      // Below `lowest` nothing is left, and the difference stays exact.
      x = larger(lowest, x);
      const float d = x - anchor;
      return exact_exponential(factor, d, x - (d + anchor));
    }
  };
  /// The same to what is left of it when it is rounded to 16 bits: 4e-6, by the rounding of an
  /// exponent that may be 126.
  struct softmax {
    static constexpr int words_in_flight = unmapped::words_in_flight;

    float factor, scale, shift;

    __device__ float operator()(float x) const {
      return factor * power_of_2(fmaf(x, scale, -shift));
    }
  };
  /// z(x) - mean with the digits that it has, wherever x is.
  struct distance {
    float mean, rest;

    __device__ float operator()(float x) const { return (x - mean) - rest; }
  };
  __device__ distance from(double mean) const {
    const float leading = few_digits(mean);
    return {leading, static_cast<float>(mean - leading)};
  }
  template <storage S>
  __device__ auto relative_to(const softmax_terms& of) const {
    if constexpr (sizeof(S) == 2) {
      return in_16_bits(of);
    } else {
      return in_fp32(of);
    }
  }

 private:
  __device__ exact_softmax in_fp32(const softmax_terms& of) const {
    const float anchor = few_digits(of.lse - of.exponent() * exact_log_2);
    // e^(z - lse) = e^(z - anchor) e^(anchor - lse)
    const int exponent = anchor == 0 ? 0 : ilogbf(anchor);
    return {.factor = static_cast<float>(of.factor * exp(anchor - of.lse) * ldexp(1.0, of.raised)),
            .anchor = anchor,
            .lowest = anchor - ldexpf(1.0F, exponent < 27 ? 7 : exponent - 20)};
  }
  __device__ softmax in_16_bits(const softmax_terms& of) const {
    const double factor = of.factor;
    if (fabs(of.lse) < 0x1p17) {
      const double exact = of.lse * static_cast<double>(log2_e) - of.exponent();
      const float shift = static_cast<float>(exact);
      // 2^(shift - exact), which all have in common
      const double r = (shift - exact) * exact_log_2;
      const double power = factor * (1 + r * (1 + r * 0.5));
      return {.factor = static_cast<float>(ldexp(power, of.raised - of.exponent())),
              .scale = log2_e,
              .shift = shift};
    }
    // Neighbours in 16 bits are hundreds of nats apart: only what is the highest counts.
    const float highest = prospect::load(store<bfloat16>(static_cast<float>(of.lse)));
    return {.factor = static_cast<float>(ldexp(factor * exp(highest - of.lse), of.raised)),
            .scale = 1,
            .shift = highest};
  }
};

/// A temperature alone, and no extreme one: z = x / temperature, in fp32 with what rounding takes.
struct scaled {
  static constexpr int words_in_flight = unmapped::words_in_flight;
  static constexpr int words_summed = unmapped::words_summed;

  double inverse_temperature;

  /// Whether nothing on the way leaves the range of fp32 that would not without a temperature.
  PROSPECT_HD static bool serves(const logit_map& map) {
    return !map.caps() && map.inverse_temperature >= 0x1p-10 && map.inverse_temperature <= 0x1p10;
  }

  struct difference {
    float reference, factor;

    __device__ float operator()(float x) const { return (x - reference) * factor; }
  };
  __device__ difference below(float highest) const {
    return {highest, static_cast<float>(inverse_temperature)};
  }
  struct power {
    float scale, shift;

    __device__ float operator()(float x) const { return power_of_2(fmaf(x, scale, -shift)); }
  };
  template <class F>
  __device__ double with_powers(float highest, const F& f) const {
    const auto scale = static_cast<float>(inverse_temperature * static_cast<double>(log2_e));
    const float shift = highest * scale;
    if (fabsf(shift) < 65536) {
      f(power{scale, shift});
      const double y = static_cast<double>(fmaf(highest, scale, -shift)) * exact_log_2;
      return 1 + y * (-1 + y * 0.5);
    }
    f([d = below(highest)](float x) { return exponential(d(x)); });
    return 1;
  }
  __device__ double z(float x) const { return inverse_temperature * x; }
  __device__ double slope(float) const { return inverse_temperature; }

  /// z(x) - mean, with the digits that it has.
  struct distance {
    float mean, rest, factor;

    __device__ float operator()(float x) const { return ((x - mean) - rest) * factor; }
  };
  __device__ distance from(double mean) const {
    const double of_x = mean / inverse_temperature;
    const float leading = few_digits(of_x);
    return {leading, static_cast<float>(of_x - leading), static_cast<float>(inverse_temperature)};
  }

  /// factor e^(z - lse) dz/dx to fp32.
  struct softmax {
    static constexpr int words_in_flight = unmapped::words_in_flight;

    float factor, anchor, lowest;  ///< of x
    float scale, scale_rest;

    __device__ float operator()(float x) const {
      x = larger(lowest, x);
      const float d = x - anchor;
      const float lost = x - (d + anchor);
      const float z = d * scale;
      return exact_exponential(factor, z, fmaf(d, scale, -z) + fmaf(d, scale_rest, lost * scale));
    }
  };
  template <storage S>
  __device__ softmax relative_to(const softmax_terms& of) const {
    const softmax_terms steepest{.lse = of.lse,
                                 .factor = static_cast<float>(of.factor * inverse_temperature),
                                 .raised = of.raised};
    const float anchor =
        few_digits((of.lse - steepest.exponent() * exact_log_2) / inverse_temperature);
    const auto scale = static_cast<float>(inverse_temperature);
    const int exponent = anchor == 0 ? 0 : ilogbf(anchor);
    // So far below that nothing is left: 2^7 nats.
    const int reach = 7 - ilogbf(scale);
    return {.factor = static_cast<float>(of.factor * inverse_temperature *
                                         exp(inverse_temperature * anchor - of.lse) *
                                         ldexp(1.0, of.raised)),
            .anchor = anchor,
            .lowest = anchor - ldexpf(1.0F, exponent - 20 < reach ? reach : exponent - 20),
            .scale = scale,
            .scale_rest = static_cast<float>(inverse_temperature - scale)};
  }
};

/// Temperature and soft cap, through fp64, because a rounded z would cost the gradient its digits.
struct mapped {
  /// Bound by arithmetic, which more would only multiply.
  static constexpr int words_in_flight = 1;
  static constexpr int words_summed = 1;

  double inverse_temperature, soft_cap;
  bool caps;

  PROSPECT_HD explicit mapped(const logit_map& map)
      : inverse_temperature{map.inverse_temperature}, soft_cap{map.soft_cap}, caps{map.caps()} {}

  template <class F>
  __device__ auto of_row(std::int64_t, const F& f) const {
    return f(*this);
  }

  struct parts {
    double z, slope;
  };
  __device__ parts operator()(float x) const {
    if (!caps) return {inverse_temperature * x, inverse_temperature};
    // tanh u = (1 - e) / (1 + e) and 1 - tanh^2 u = 4 e / (1 + e)^2, with e = e^(-2 |u|)
    const double u = x / soft_cap;
    const double e = exp(-2 * fabs(u));
    const double inverse = 1 / (1 + e);
    const double z = inverse_temperature * soft_cap * copysign((1 - e) * inverse, u);
    const bool impossible = x == -infinity;
    return {impossible ? static_cast<double>(x) : z,
            inverse_temperature * 4 * e * inverse * inverse};
  }
  __device__ double z(float x) const { return (*this)(x).z; }
  __device__ double slope(float x) const { return (*this)(x).slope; }

  struct difference;
  struct softmax;
  __device__ difference below(float highest) const;
  template <class F>
  __device__ double with_powers(float highest, const F& f) const;
  __device__ difference from(double mean) const;
  template <storage S>
  __device__ softmax relative_to(const softmax_terms& of) const;
};

struct mapped::difference {
  mapped map;
  double reference;

  __device__ float operator()(float x) const { return static_cast<float>(map.z(x) - reference); }
};
__device__ inline mapped::difference mapped::below(float highest) const {
  return {*this, z(highest)};
}
template <class F>
__device__ double mapped::with_powers(float highest, const F& f) const {
  f([d = below(highest)](float x) { return exponential(d(x)); });
  return 1;
}
__device__ inline mapped::difference mapped::from(double mean) const { return {*this, mean}; }

struct mapped::softmax {
  static constexpr int words_in_flight = mapped::words_in_flight;

  mapped map;
  double lse;
  float factor;

  __device__ float operator()(float x) const {
    const parts p = map(x);
    const double below = p.z - lse;
    const double d = below < -200 ? -200 : below;
    const float high = static_cast<float>(d);
    return exact_exponential(factor * static_cast<float>(p.slope), high,
                             static_cast<float>(d - high));
  }
};
template <storage S>
__device__ mapped::softmax mapped::relative_to(const softmax_terms& of) const {
  // The factor at its largest, where the map is steepest.
  const softmax_terms steepest{.lse = of.lse,
                               .factor = static_cast<float>(of.factor * inverse_temperature),
                               .raised = of.raised};
  const int exponent = steepest.exponent();
  return {*this, of.lse - exponent * exact_log_2,
          static_cast<float>(ldexp(static_cast<double>(of.factor), of.raised - exponent))};
}

/// Rows with inverse temperatures of their own: each has the very map that it had if they all had
/// it. Calls f with that of row t.
struct mapped_rows {
  prospect::detail::row_maps maps;

  template <class F>
  __device__ auto of_row(std::int64_t t, const F& f) const {
    const logit_map map = maps[t];
    if (map.identity()) return f(unmapped{});
    if (scaled::serves(map)) return f(scaled{map.inverse_temperature});
    return f(mapped{map});
  }
};

}  // namespace prospect::inline v2::cuda::detail
PROSPECT_STRICT_END
