// What a formula computes with: a floating-point number, or several side by side. The choice
// between two of them that works for both.
#pragma once

#include <prospect/core/dtype.hpp>

#include <concepts>
#include <cstdint>
#include <type_traits>
#include <utility>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v1 {

/// A floating-point type, or a class of several of them that behaves like one: arithmetic,
/// comparisons that give a mask, `select`, and the primitives of math.hpp. Such a class names its
/// `lane_type`, is made from any plain number, and is found by its own namespace.
template <class R>
concept number = std::floating_point<R> || requires { typename R::lane_type; };

/// What comparing two of them gives: bool, or a mask.
template <number R>
using flag_of = decltype(std::declval<R>() < std::declval<R>());

/// condition ? a : b. A formula that says this instead does not branch.
template <std::floating_point R>
PROSPECT_HD constexpr R select(bool condition, R a, R b) noexcept {
  return condition ? a : b;
}

namespace detail {

/// The larger number; `b` where either is NaN.
template <std::floating_point R>
PROSPECT_HD constexpr R larger(R a, R b) noexcept {
  return a > b ? a : b;
}

/// The bits of a double, or of several.
template <class D>
struct bits_of {
  using type = typename D::bits_type;
};
template <>
struct bits_of<double> {
  using type = std::uint64_t;
};
template <class D>
using bits_of_t = typename bits_of<D>::type;

}  // namespace detail

}  // namespace prospect::inline v1
PROSPECT_STRICT_END
