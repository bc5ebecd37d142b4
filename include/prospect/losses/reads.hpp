// What a loss reads: found by changing it and looking whether anything else comes out. So a missing
// row is an error exactly where it matters, and no loss carries flags that could drift from its
// formula. Several values are tried, because a formula may be flat or branch.
#pragma once

#include <prospect/core/isa.hpp>
#include <prospect/core/strict.hpp>
#include <prospect/losses/differentiate.hpp>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2 {

namespace detail {
inline namespace PROSPECT_ISA {

/// By the bits first: of what is computed twice the same way, NaN included, a compiler then sees
/// that it is the same, and asks nothing at run time.
template <std::floating_point R>
PROSPECT_INLINE bool same(R a, R b) {
  using bits = std::remove_const_t<decltype(infinity_bits<R>)>;
  return bit_cast<bits>(a) == bit_cast<bits>(b) || a == b;
}
template <class R>
PROSPECT_INLINE bool same(const paired_value<R>& a, const paired_value<R>& b) {
  return same(a.loss, b.loss) && same(a.d_chosen, b.d_chosen) && same(a.d_rejected, b.d_rejected);
}
template <class R>
PROSPECT_INLINE bool same(const unpaired_value<R>& a, const unpaired_value<R>& b) {
  return same(a.loss, b.loss) && same(a.d_policy, b.d_policy);
}

template <class R>
PROSPECT_INLINE bool same(const token_value<R>& a, const token_value<R>& b) {
  return same(a.loss, b.loss) && same(a.d_policy, b.d_policy) && same(a.d_sum, b.d_sum);
}
template <class R>
PROSPECT_INLINE bool same(const token_contribution<R>& a, const token_contribution<R>& b) {
  return same(a.value, b.value) && same(a.slope, b.slope);
}

/// What a loss says of a sample. One of several is called: a compiler would find out nothing, and
/// take all of their formulas for each of the questions below.
template <class L, class Sample>
[[gnu::noinline]] auto called(const L& loss, const Sample& sample) {
  return differentiate(loss, sample);
}
template <class L, class Sample>
PROSPECT_INLINE auto said(const L& loss, const Sample& sample) {
  if constexpr (one_of_several<L>) {
    return called(loss, sample);
  } else {
    return differentiate(loss, sample);
  }
}

template <class R, class L>
PROSPECT_INLINE bool tells_apart(const L& loss, const pair<R>& a, const pair<R>& b) {
  return !same(said(loss, a), said(loss, b));
}
/// In either class.
template <class R, class L>
PROSPECT_INLINE bool tells_apart(const L& loss, const unpaired<R>& a, const unpaired<R>& b) {
  const auto value = [&](unpaired<R> sample, bool desirable) __attribute__((always_inline)) {
    sample.desirable = desirable;
    return said(loss, sample);
  };
  return !same(value(a, true), value(b, true)) || !same(value(a, false), value(b, false));
}
/// By itself, or in what it adds to its sequence.
template <class R, class L>
PROSPECT_INLINE bool tells_apart(const L& loss, const token<R>& a, const token<R>& b) {
  if constexpr (sums_tokens<L>) {
    if (!same(contribution(loss, a), contribution(loss, b))) return true;
  }
  return !same(said(loss, a), said(loss, b));
}
/// On either side of a pair.
template <class R, class L>
PROSPECT_INLINE bool tells_apart(const L& loss, const completion<R>& a, const completion<R>& b) {
  if constexpr (paired_loss<L, R>) {
    const pair<R> both{.chosen = a, .rejected = a};
    return tells_apart(loss, both, pair<R>{.chosen = b, .rejected = a}) ||
           tells_apart(loss, both, pair<R>{.chosen = a, .rejected = b});
  } else {
    return tells_apart(loss, unpaired<R>{.answer = a}, unpaired<R>{.answer = b});
  }
}

}  // namespace PROSPECT_ISA
}  // namespace detail

inline namespace PROSPECT_ISA {

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

/// The same of a loss of tokens.
template <class R, class L>
  requires token_loss<L, R>
bool reads_reference(const L& loss) {
  const auto of = [](R ratio, R advantage) __attribute__((always_inline)) {
    return token<R>{.policy = R(-2),
                    .ratio = R(0.125),
                    .reference_ratio = ratio,
                    .advantage = advantage,
                    .sum = R(0.25),
                    .tokens = R(2)};
  };
  for (const R ratio : {R(-1000), R(-30), R(-0.5), R(0), R(3), R(30), R(1000)}) {
    for (const R advantage : {R(1), R(-1)}) {
      if (detail::tells_apart(loss, of(R(0.5), advantage), of(ratio, advantage))) return true;
    }
  }
  return false;
}

/// Whether a loss of tokens depends on the advantage.
template <class R, class L>
  requires token_loss<L, R>
bool reads_advantage(const L& loss) {
  const auto of = [](R ratio, R advantage) __attribute__((always_inline)) {
    return token<R>{.policy = R(-2),
                    .ratio = ratio,
                    .reference_ratio = R(0.5),
                    .advantage = advantage,
                    .sum = ratio,
                    .tokens = R(2)};
  };
  for (const R ratio : {R(0), R(0.125), R(-30), R(30)}) {
    for (const R advantage : {R(2), R(-1), R(0)}) {
      if (detail::tells_apart(loss, of(ratio, R(1)), of(ratio, advantage))) return true;
    }
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

/// Whether a paired loss depends on the margin.
template <class R, class L>
bool reads_margin(const L& loss) {
  for (const R ratio : {R(0.5), R(-30), R(30)}) {
    const completion<R> chosen{.policy = R(-2), .ratio = ratio, .tokens = R(2)};
    const completion<R> rejected{.policy = R(-3), .ratio = R(0), .tokens = R(3)};
    if (detail::tells_apart(loss, pair<R>{.chosen = chosen, .rejected = rejected},
                            {.chosen = chosen, .rejected = rejected, .margin = R(5)}))
      return true;
  }
  return false;
}

/// Whether an unpaired loss depends on the target.
template <class R, class L>
bool reads_target(const L& loss) {
  for (const R ratio : {R(0.5), R(-30), R(30)}) {
    const completion<R> answer{.policy = R(-2), .ratio = ratio, .tokens = R(2)};
    if (detail::tells_apart(loss, unpaired<R>{.answer = answer},
                            {.answer = answer, .target = R(5)}))
      return true;
  }
  return false;
}

/// Whether an unpaired loss depends on the reference point.
template <class R, class L>
bool reads_reference_point(const L& loss) {
  for (const R ratio : {R(0.5), R(-30), R(30)}) {
    const completion<R> answer{.policy = R(-2), .ratio = ratio, .tokens = R(2)};
    const unpaired<R> here{.answer = answer, .z = R(0), .desirable = true};
    if (detail::said(loss, here).d_z != R(0) ||
        detail::tells_apart(loss, here, {.answer = answer, .z = R(5)}))
      return true;
  }
  return false;
}

}  // namespace PROSPECT_ISA
}  // namespace prospect::inline v2
PROSPECT_STRICT_END
