// Mixtures of losses as values: `0.8 * dpo{} + 0.2 * bco_pair{} + 1.0 * sft{}` is a loss like any
// other, on every back end.
#pragma once

#include <prospect/losses/concepts.hpp>
#include <prospect/losses/parts/next_token.hpp>
#include <prospect/losses/token/sft.hpp>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2 {

template <class L>
struct weighted_loss;
template <class A, class B>
struct mixture;

namespace detail {

/// Whether a term of a mixture is nothing but SFT's, which is no formula of a pair.
template <class T>
inline constexpr bool only_next_tokens = std::same_as<T, sft>;
template <class L>
inline constexpr bool only_next_tokens<weighted_loss<L>> = only_next_tokens<L>;
template <class A, class B>
inline constexpr bool only_next_tokens<mixture<A, B>> = only_next_tokens<A> && only_next_tokens<B>;

template <class T>
inline constexpr bool goes_with_pairs = only_next_tokens<T> || paired_loss<T>;

/// Not duals, which are numbers.
template <class T>
concept mixable = std::same_as<scalar_of_t<T>, T> && (goes_with_pairs<T> || unpaired_loss<T>);

/// A base that promises `branch_free`, and one that does not.
template <bool free>
struct branch_promise {};
template <>
struct branch_promise<true> {
  static constexpr bool branch_free = true;
};
template <class... T>
using promise_of = branch_promise<(... && (only_next_tokens<T> || branch_free_loss<T>))>;

template <class T>
PROSPECT_HD constexpr next_token_term next_token_in(const T& term) {
  if constexpr (std::same_as<T, sft>) {
    return {.weight = 1, .chosen = true};
  } else {
    return next_token_of(term);
  }
}

}  // namespace detail

/// A weight times a loss; a weight of 0 switches it off, whatever its value.
template <class L>
struct weighted_loss : detail::promise_of<L> {
  double weight;
  L loss;

  PROSPECT_HD constexpr weighted_loss(double w, const L& l) : weight{w}, loss{l} {}

  PROSPECT_INLINE constexpr const char* problem() const {
    if (!detail::not_negative(weight)) {
      return "the weight of a loss in a mixture must not be negative (0 to 1e30)";
    }
    return prospect::problem(loss);
  }
  PROSPECT_HD constexpr double reward_scale() const { return prospect::reward_scale(loss); }
  PROSPECT_HD constexpr next_token_term next_token() const {
    next_token_term scaled = detail::next_token_in(loss);
    scaled.weight *= weight;
    return scaled;
  }
  template <class Sample>
    requires requires(const L& l, const Sample& sample) { l(sample); }
  PROSPECT_HD constexpr auto operator()(const Sample& sample) const {
    return term(weight, loss(sample));
  }
};

/// The sum of two losses of one kind, each with a weight, or a mixture itself. Rewards are those of
/// the first. Next-token terms add up, if they are over the same completions.
template <class A, class B>
struct mixture : detail::promise_of<A, B> {
  A first;
  B second;

  PROSPECT_HD constexpr mixture(const A& a, const B& b) : first{a}, second{b} {}

  PROSPECT_INLINE constexpr const char* problem() const {
    if (const char* why = prospect::problem(first)) return why;
    if (const char* why = prospect::problem(second)) return why;
    const next_token_term a = detail::next_token_in(first);
    const next_token_term b = detail::next_token_in(second);
    if (a.weight != 0 && b.weight != 0 && !a.over_same_as(b)) {
      return "the next-token terms of a mixture must be over the same completions";
    }
    return nullptr;
  }
  PROSPECT_HD constexpr double reward_scale() const {
    if constexpr (detail::only_next_tokens<A>) {
      return prospect::reward_scale(second);
    } else {
      return prospect::reward_scale(first);
    }
  }
  PROSPECT_HD constexpr next_token_term next_token() const {
    const next_token_term a = detail::next_token_in(first);
    const next_token_term b = detail::next_token_in(second);
    next_token_term both = a.weight != 0 ? a : b;
    both.weight = a.weight + b.weight;
    return both;
  }
  template <class Sample>
    requires(detail::only_next_tokens<A> || requires(const A& a, const Sample& s) { a(s); }) &&
            (detail::only_next_tokens<B> || requires(const B& b, const Sample& s) { b(s); }) &&
            (!(detail::only_next_tokens<A> && detail::only_next_tokens<B>))
  PROSPECT_HD constexpr auto operator()(const Sample& sample) const {
    if constexpr (detail::only_next_tokens<A>) {
      return second(sample);
    } else if constexpr (detail::only_next_tokens<B>) {
      return first(sample);
    } else {
      return first(sample) + second(sample);
    }
  }
};

/// Losses of the caller's own are mixed where these operators are found: after
/// `using prospect::operator*, prospect::operator+;`.
template <detail::mixable L>
PROSPECT_HD constexpr weighted_loss<L> operator*(double weight, const L& loss) {
  return {weight, loss};
}
template <detail::mixable A, detail::mixable B>
PROSPECT_HD constexpr mixture<A, B> operator+(const A& a, const B& b) {
  constexpr bool pairs = detail::goes_with_pairs<A> && detail::goes_with_pairs<B>;
  static_assert(pairs || (unpaired_loss<A> && unpaired_loss<B>),
                "prospect: a mixture is made of losses of one kind, of pairs or of completions "
                "with a thumb up or down; sft goes with pairs");
  return {a, b};
}

}  // namespace prospect::inline v2
PROSPECT_STRICT_END
