// Dual numbers: a value and its partial derivatives, carried together (forward-mode
// differentiation). A loss is written once as a value; called with duals it yields its gradient,
// exact to rounding, on host and device.
#pragma once

#include <prospect/core/math.hpp>

#include <concepts>
#include <type_traits>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2 {

namespace detail {

/// What a dual over R takes for a constant.
template <class Number, class R>
concept constant_for = std::is_arithmetic_v<Number> || std::same_as<Number, R>;

}  // namespace detail

/// value + sum_k partial[k] eps_k, with eps_i eps_j = 0.
///
/// Mixes freely with plain numbers, which are constants: they are converted to `R` first, so that
/// a double hyper-parameter never drags fp32 arithmetic into fp64.
template <number R, int N>
struct dual {
  using flag = flag_of<R>;

  R value{};
  R partial[N]{};

  PROSPECT_INLINE dual() = default;
  PROSPECT_HD constexpr dual(R constant) noexcept : value{constant} {}
  template <class Number>
    requires(std::is_arithmetic_v<Number> && !std::same_as<Number, R>)
  PROSPECT_HD constexpr dual(Number constant) noexcept : value{static_cast<R>(constant)} {}

  /// The k-th independent variable.
  PROSPECT_HD static constexpr dual variable(R x, int k) noexcept {
    dual d{x};
    d.partial[k] = R(1);
    return d;
  }

  /// f(x) by the chain rule, for a function with this value and this slope at x.
  PROSPECT_HD constexpr dual chain(R f, R slope) const noexcept {
    dual d{f};
    // A constant stays one, even where the slope is infinite: 0 * inf would be NaN.
    for (int k = 0; k < N; ++k) {
      d.partial[k] = select(partial[k] == R(0), R(0), slope * partial[k]);
    }
    return d;
  }

  PROSPECT_HD friend constexpr dual operator-(dual a) noexcept {
    a.value = -a.value;
    for (R& p : a.partial) p = -p;
    return a;
  }
  PROSPECT_HD friend constexpr dual operator+(dual a, const dual& b) noexcept {
    a.value += b.value;
    for (int k = 0; k < N; ++k) a.partial[k] += b.partial[k];
    return a;
  }
  PROSPECT_HD friend constexpr dual operator-(dual a, const dual& b) noexcept {
    a.value -= b.value;
    for (int k = 0; k < N; ++k) a.partial[k] -= b.partial[k];
    return a;
  }
  PROSPECT_HD friend constexpr dual operator*(const dual& a, const dual& b) noexcept {
    dual d{a.value * b.value};
    for (int k = 0; k < N; ++k) d.partial[k] = a.partial[k] * b.value + a.value * b.partial[k];
    return d;
  }
  PROSPECT_HD friend constexpr dual operator/(const dual& a, const dual& b) noexcept {
    dual d{detail::precise::divide(a.value, b.value)};
    for (int k = 0; k < N; ++k) {
      d.partial[k] = detail::precise::divide(a.partial[k] - d.value * b.partial[k], b.value);
    }
    return d;
  }

  // With a plain number only the dual's own partials are touched.
  template <detail::constant_for<R> Number>
  PROSPECT_HD friend constexpr dual operator+(dual a, Number b) noexcept {
    a.value += static_cast<R>(b);
    return a;
  }
  template <detail::constant_for<R> Number>
  PROSPECT_HD friend constexpr dual operator+(Number a, const dual& b) noexcept {
    return b + a;
  }
  template <detail::constant_for<R> Number>
  PROSPECT_HD friend constexpr dual operator-(dual a, Number b) noexcept {
    a.value -= static_cast<R>(b);
    return a;
  }
  template <detail::constant_for<R> Number>
  PROSPECT_HD friend constexpr dual operator-(Number a, const dual& b) noexcept {
    return -b + a;
  }
  template <detail::constant_for<R> Number>
  PROSPECT_HD friend constexpr dual operator*(dual a, Number b) noexcept {
    const R factor = static_cast<R>(b);
    a.value *= factor;
    for (R& p : a.partial) p *= factor;
    return a;
  }
  template <detail::constant_for<R> Number>
  PROSPECT_HD friend constexpr dual operator*(Number a, const dual& b) noexcept {
    return b * a;
  }
  template <detail::constant_for<R> Number>
  PROSPECT_HD friend constexpr dual operator/(dual a, Number b) noexcept {
    const R divisor = static_cast<R>(b);
    a.value = detail::precise::divide(a.value, divisor);
    for (R& p : a.partial) p = detail::precise::divide(p, divisor);
    return a;
  }
  template <detail::constant_for<R> Number>
  PROSPECT_HD friend constexpr dual operator/(Number a, const dual& b) noexcept {
    return dual{a} / b;
  }

  PROSPECT_HD constexpr dual& operator+=(const dual& b) noexcept { return *this = *this + b; }
  PROSPECT_HD constexpr dual& operator-=(const dual& b) noexcept { return *this = *this - b; }
  PROSPECT_HD constexpr dual& operator*=(const dual& b) noexcept { return *this = *this * b; }
  PROSPECT_HD constexpr dual& operator/=(const dual& b) noexcept { return *this = *this / b; }

  // Comparisons look at the value only: a formula may branch. Spelled out, because what <=> returns
  // cannot be used on the device.
  PROSPECT_HD friend constexpr flag operator==(const dual& a, const dual& b) noexcept {
    return a.value == b.value;
  }
  PROSPECT_HD friend constexpr flag operator<(const dual& a, const dual& b) noexcept {
    return a.value < b.value;
  }
  PROSPECT_HD friend constexpr flag operator<=(const dual& a, const dual& b) noexcept {
    return a.value <= b.value;
  }
  PROSPECT_HD friend constexpr flag operator>(const dual& a, const dual& b) noexcept {
    return a.value > b.value;
  }
  PROSPECT_HD friend constexpr flag operator>=(const dual& a, const dual& b) noexcept {
    return a.value >= b.value;
  }
};

/// condition ? a : b, where a formula chooses without branching.
template <class R, int N>
PROSPECT_HD constexpr dual<R, N> select(std::type_identity_t<flag_of<R>> condition,
                                        const dual<R, N>& a, const dual<R, N>& b) noexcept {
  dual<R, N> d{select(condition, a.value, b.value)};
  for (int k = 0; k < N; ++k) d.partial[k] = select(condition, a.partial[k], b.partial[k]);
  return d;
}

/// The plain number inside `T`: `R` for `dual<R, N>`, `T` itself otherwise.
template <class T>
struct scalar_of {
  using type = T;
};
template <class R, int N>
struct scalar_of<dual<R, N>> {
  using type = R;
};
template <class T>
using scalar_of_t = typename scalar_of<T>::type;

/// x as a constant, through which no gradient passes: what papers write as sg(x).
template <number R>
PROSPECT_HD constexpr R detached(const R& x) noexcept {
  return x;
}
template <class R, int N>
PROSPECT_HD constexpr dual<R, N> detached(const dual<R, N>& x) noexcept {
  return dual<R, N>{x.value};
}

/// The value alone, as a plain number.
template <number R>
PROSPECT_HD constexpr R value_of(const R& x) noexcept {
  return x;
}
template <class R, int N>
PROSPECT_HD constexpr R value_of(const dual<R, N>& x) noexcept {
  return x.value;
}

/// weight x, where a weight of 0 switches the term off, infinite or not: for the hyper-parameters
/// of a formula. 0 times an infinity is NaN, and so a loss would be that needs no term at all.
template <class T>
PROSPECT_HD constexpr T term(double weight, const T& x) noexcept {
  return weight == 0 ? T(0) : static_cast<scalar_of_t<T>>(weight) * x;
}

template <class R, int N>
PROSPECT_HD inline dual<R, N> exp(const dual<R, N>& x) noexcept {
  const R value = exp(x.value);
  return x.chain(value, value);
}

template <class R, int N>
PROSPECT_HD inline dual<R, N> expm1(const dual<R, N>& x) noexcept {
  return x.chain(expm1(x.value), exp(x.value));
}

template <class R, int N>
PROSPECT_HD inline dual<R, N> log(const dual<R, N>& x) noexcept {
  return x.chain(log(x.value), detail::reciprocal(x.value));
}

template <class R, int N>
PROSPECT_HD inline dual<R, N> log1p(const dual<R, N>& x) noexcept {
  return x.chain(log1p(x.value), detail::reciprocal(R(1) + x.value));
}

template <class R, int N>
PROSPECT_HD inline dual<R, N> sigmoid(const dual<R, N>& x) noexcept {
  return x.chain(sigmoid(x.value), sigmoid_slope(x.value));
}

template <class R, int N>
PROSPECT_HD inline dual<R, N> softplus(const dual<R, N>& x) noexcept {
  return x.chain(softplus(x.value), sigmoid(x.value));
}

template <class R, int N>
PROSPECT_HD inline dual<R, N> log_sigmoid(const dual<R, N>& x) noexcept {
  return x.chain(log_sigmoid(x.value), sigmoid(-x.value));
}

template <class R, int N>
PROSPECT_HD inline dual<R, N> log1mexp(const dual<R, N>& x) noexcept {
  return x.chain(log1mexp(x.value), log1mexp_slope(x.value));
}

template <class R, int N>
PROSPECT_HD inline dual<R, N> tanh(const dual<R, N>& x) noexcept {
  return x.chain(tanh(x.value), tanh_slope(x.value));
}

template <class R, int N, detail::constant_for<R> Number>
PROSPECT_HD inline dual<R, N> pow(const dual<R, N>& base, Number exponent) noexcept {
  return base.chain(pow(base.value, exponent), pow_slope(base.value, exponent));
}
template <class R, int N>
PROSPECT_HD inline dual<R, N> pow(const dual<R, N>& base, const dual<R, N>& exponent) noexcept {
  const R value = pow(base.value, exponent.value);
  const R in_exponent = pow_slope_in_exponent(base.value, exponent.value);
  dual<R, N> d = base.chain(value, pow_slope(base.value, exponent.value));
  const dual<R, N> other = exponent.chain(value, in_exponent);
  for (int k = 0; k < N; ++k) d.partial[k] += other.partial[k];
  return d;
}
template <class R, int N, detail::constant_for<R> Number>
PROSPECT_HD inline dual<R, N> pow(Number base, const dual<R, N>& exponent) noexcept {
  const R b = static_cast<R>(base);
  return exponent.chain(pow(b, exponent.value), pow_slope_in_exponent(b, exponent.value));
}

template <class R, int N>
PROSPECT_HD inline dual<R, N> sqrt(const dual<R, N>& x) noexcept {
  return x.chain(sqrt(x.value), sqrt_slope(x.value));
}

template <class R, int N>
PROSPECT_HD constexpr dual<R, N> abs(const dual<R, N>& x) noexcept {
  const R right = select(x.value > R(0), R(1), R(0));
  return x.chain(abs(x.value), select(x.value < R(0), R(-1), right));
}

template <class R, int N>
PROSPECT_HD constexpr dual<R, N> relu(const dual<R, N>& x) noexcept {
  return x.chain(relu(x.value), select(x.value <= R(0), R(0), R(1)));
}

template <class R, int N>
PROSPECT_HD constexpr dual<R, N> square(const dual<R, N>& x) noexcept {
  return x.chain(square(x.value), R(2) * x.value);
}

template <class R, int N>
PROSPECT_HD constexpr dual<R, N> clamp(const dual<R, N>& x, std::type_identity_t<R> low,
                                       std::type_identity_t<R> high) noexcept {
  return x.chain(clamp(x.value, low, high), select(x.value < low || x.value > high, R(0), R(1)));
}

}  // namespace prospect::inline v2
PROSPECT_STRICT_END
