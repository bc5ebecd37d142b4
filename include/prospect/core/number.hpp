// What a formula computes with: a floating-point number, or several side by side. The choice
// between two of them that works for both.
#pragma once

#include <prospect/core/dtype.hpp>

#include <cmath>
#include <concepts>
#include <cstdint>
#include <type_traits>
#include <utility>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2 {

/// A floating-point type, or a class of several of them that behaves like one: arithmetic,
/// comparisons that give a mask, `select`, and the primitives of math.hpp. Such a class names its
/// `lane_type`, is made from any plain number, and is found by its own namespace.
template <class R>
concept number = std::floating_point<R> || requires { typename R::lane_type; };

/// What comparing two of them gives: bool, or a mask.
template <number R>
using flag_of = decltype(std::declval<R>() < std::declval<R>());

namespace detail {

/// The bits of a number, or of several, and the one number that a lane of them is.
template <class D>
struct bits_of {
  using type = typename D::bits_type;
  using lane = typename D::lane_type;
};
template <>
struct bits_of<float> {
  using type = std::uint32_t;
  using lane = float;
};
template <>
struct bits_of<double> {
  using type = std::uint64_t;
  using lane = double;
};
template <class D>
using bits_of_t = typename bits_of<D>::type;
/// All bits of a lane but its sign.
template <class D>
inline constexpr auto but_sign = ~typename bits_of<typename bits_of<D>::lane>::type{0} >> 1;

/// |x|.
template <class D>
PROSPECT_HD constexpr D absolute(D x) noexcept {
#if defined(__CUDA_ARCH__)  // to whom it is part of the instruction that takes it
  if (!__builtin_is_constant_evaluated()) return std::fabs(x);
#endif
  return bit_cast<D>(bit_cast<bits_of_t<D>>(x) & but_sign<D>);
}
PROSPECT_HD constexpr long double absolute(long double x) noexcept { return x < 0 ? -x : x; }
/// A number of magnitude |x|, with the sign of `signed_one`.
template <class D>
PROSPECT_HD constexpr D with_sign_of(D signed_one, D x) noexcept {
  return bit_cast<D>((bit_cast<bits_of_t<D>>(x) & but_sign<D>) |
                     (bit_cast<bits_of_t<D>>(signed_one) & ~but_sign<D>));
}

}  // namespace detail

/// condition ? a : b. A formula that says this instead does not branch.
template <std::floating_point R>
PROSPECT_HD constexpr R select(bool condition, R a, R b) noexcept {
#if PROSPECT_CHOOSES_BITS
  if constexpr (!std::same_as<R, long double>) {
    using bits = detail::bits_of_t<R>;
    return detail::bit_cast<R>(condition ? detail::bit_cast<bits>(a) : detail::bit_cast<bits>(b));
  }
#endif
  return condition ? a : b;
}

namespace detail {

/// The larger number; `b` where either is NaN.
template <std::floating_point R>
PROSPECT_HD constexpr R larger(R a, R b) noexcept {
  return select(a > b, a, b);
}
/// The smaller number; `b` where either is NaN.
template <std::floating_point R>
PROSPECT_HD constexpr R smaller(R a, R b) noexcept {
  return select(a < b, a, b);
}

}  // namespace detail

}  // namespace prospect::inline v2
PROSPECT_STRICT_END
