// Several numbers as one: the vector type that a loss is given in place of a plain number, so that
// the one formula, through the same dual numbers, is vector code whatever the optimiser thinks of
// it. As many floats as the instruction set holds; primitives go through double, half by half, but
// for those in several_math.hpp.
#pragma once

#include <prospect/core/dual.hpp>
#include <prospect/cpu/detail/mask.hpp>

#include <concepts>
#include <type_traits>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cpu::detail {
inline namespace PROSPECT_CPU_ISA {

/// a / b. Left to a host's flags, it may become an estimate.
template <std::floating_point R>
PROSPECT_APART numbers<R> quotient(numbers<R> a, numbers<R> b) {
  return a / b;
}

template <std::floating_point R>
struct several {
  using lane_type = R;
  using bits_type = typename lane_types<R>::bits;
  using vector = numbers<R>;

  vector lane{};

  PROSPECT_INLINE several() = default;
  PROSPECT_INLINE several(vector x) : lane{x} {}
  /// The same number in every lane.
  template <class Number>
    requires std::is_arithmetic_v<Number>
  PROSPECT_INLINE several(Number x) : lane{every_lane<vector>(static_cast<R>(x))} {}

  PROSPECT_INLINE friend several operator-(several a) { return -a.lane; }
  PROSPECT_INLINE friend several operator+(several a, several b) { return a.lane + b.lane; }
  PROSPECT_INLINE friend several operator-(several a, several b) { return a.lane - b.lane; }
  PROSPECT_INLINE friend several operator*(several a, several b) { return a.lane * b.lane; }
  PROSPECT_INLINE friend several operator/(several a, several b) {
    return quotient<R>(a.lane, b.lane);
  }
  PROSPECT_INLINE several& operator+=(several b) { return *this = *this + b; }
  PROSPECT_INLINE several& operator-=(several b) { return *this = *this - b; }
  PROSPECT_INLINE several& operator*=(several b) { return *this = *this * b; }
  PROSPECT_INLINE several& operator/=(several b) { return *this = *this / b; }

  using flag = mask<R>;
  PROSPECT_INLINE friend flag operator==(several a, several b) { return equal<R>(a.lane, b.lane); }
  PROSPECT_INLINE friend flag operator<(several a, several b) { return below<R>(a.lane, b.lane); }
  PROSPECT_INLINE friend flag operator<=(several a, several b) {
    return at_most<R>(a.lane, b.lane);
  }
  PROSPECT_INLINE friend flag operator>(several a, several b) { return b < a; }
  PROSPECT_INLINE friend flag operator>=(several a, several b) { return b <= a; }

  PROSPECT_INLINE friend several select(flag condition, several a, several b) {
    return chosen_by(condition, a.lane, b.lane);
  }
  PROSPECT_INLINE friend flag is_finite(several a) { return finite(a.lane); }
  /// `b` where either is NaN.
  PROSPECT_INLINE friend several larger(several a, several b) {
    return detail::larger(a.lane, b.lane);
  }
  PROSPECT_INLINE friend several smaller(several a, several b) {
    return detail::smaller(a.lane, b.lane);
  }
};

/// How the primitives of core/math.hpp reach the lanes.
template <class F>
PROSPECT_INLINE several<float> in_double(several<float> x, const F& f) {
  const double_pair wide = widened(x.lane);
  return narrowed({f(several<double>{wide.first}).lane, f(several<double>{wide.second}).lane});
}
template <class F>
PROSPECT_INLINE several<float> in_double(several<float> x, several<float> y, const F& f) {
  const double_pair a = widened(x.lane);
  const double_pair b = widened(y.lane);
  return narrowed({f(several<double>{a.first}, several<double>{b.first}).lane,
                   f(several<double>{a.second}, several<double>{b.second}).lane});
}

}  // namespace PROSPECT_CPU_ISA
}  // namespace prospect::inline v2::cpu::detail
PROSPECT_STRICT_END
