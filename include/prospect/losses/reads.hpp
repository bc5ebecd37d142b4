// What a loss reads: found by changing it and looking whether anything else comes out. So a missing
// row is an error exactly where it matters, and no loss carries flags that could drift from its
// formula. Several values are tried, because a formula may be flat or branch.
#pragma once

#include <prospect/losses/differentiate.hpp>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v1 {

namespace detail {

/// NaN is what a formula says outside of where it is defined, and the same as NaN.
template <class R>
bool same(R a, R b) {
  return a == b || (is_nan(a) && is_nan(b));
}
template <class R>
bool same(const paired_value<R>& a, const paired_value<R>& b) {
  return same(a.loss, b.loss) && same(a.d_chosen, b.d_chosen) && same(a.d_rejected, b.d_rejected);
}
template <class R>
bool same(const unpaired_value<R>& a, const unpaired_value<R>& b) {
  return same(a.loss, b.loss) && same(a.d_policy, b.d_policy);
}

template <class R, class L>
bool tells_apart(const L& loss, const completion<R>& a, const completion<R>& b) {
  if constexpr (paired_loss<L, R>) {
    const auto value = [&](const completion<R>& chosen, const completion<R>& rejected) {
      return differentiate(loss, pair<R>{.chosen = chosen, .rejected = rejected});
    };
    return !same(value(a, a), value(b, a)) || !same(value(a, a), value(a, b));
  } else {
    const auto value = [&](const completion<R>& answer, bool desirable) {
      return differentiate(loss, unpaired<R>{.answer = answer, .z = 0, .desirable = desirable});
    };
    return !same(value(a, true), value(b, true)) || !same(value(a, false), value(b, false));
  }
}

}  // namespace detail

/// Whether the loss depends on the reference.
template <class R, class L>
bool reads_reference(const L& loss) {
  for (const R ratio : {R(-1000), R(-30), R(-0.5), R(0), R(3), R(30), R(1000)}) {
    const completion<R> here{.policy = R(-2), .ratio = R(0.5), .tokens = R(2)};
    if (detail::tells_apart(loss, here, {.policy = R(-2), .ratio = ratio, .tokens = R(2)}))
      return true;
  }
  return false;
}

/// Whether the loss depends on the numbers of tokens.
template <class R, class L>
bool reads_tokens(const L& loss) {
  for (const R ratio : {R(-30), R(0.5), R(30)}) {
    const completion<R> here{.policy = R(-20), .ratio = ratio, .tokens = R(2)};
    if (detail::tells_apart(loss, here, {.policy = R(-20), .ratio = ratio, .tokens = R(7)}))
      return true;
  }
  return false;
}

}  // namespace prospect::inline v1
PROSPECT_STRICT_END
