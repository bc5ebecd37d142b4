// What the costlier losses of pairs are made of, without the formula: each of their primitives
// once, on numbers that are at hand, added up. Where a loss takes more than twice as long as DPO,
// which has one softplus, this says how much of that is its mathematics.
#pragma once

#include <prospect/losses/losses.hpp>

#include <string_view>

namespace bench {

template <class T>
constexpr T primitives(const prospect::orpo&, const prospect::pair<T>& p) {
  return softplus(p.mean_policy_margin()) + log1mexp(p.chosen.mean_policy()) +
         log1mexp(p.rejected.mean_policy());
}
template <class T>
constexpr T primitives(const prospect::alphapo&, const prospect::pair<T>& p) {
  return softplus(p.mean_policy_margin()) + expm1(p.chosen.mean_policy()) +
         expm1(p.rejected.mean_policy());
}
template <class T>
constexpr T primitives(const prospect::nca&, const prospect::pair<T>& p) {
  return softplus(-p.chosen.log_ratio()) + softplus(p.chosen.log_ratio()) +
         softplus(p.rejected.log_ratio());
}
template <class T>
constexpr T primitives(const prospect::mpo&, const prospect::pair<T>& p) {
  return softplus(p.log_ratio_margin()) + softplus(p.chosen.log_ratio()) +
         softplus(p.rejected.log_ratio());
}
template <class T>
constexpr T primitives(const prospect::discopop&, const prospect::pair<T>& p) {
  return along(p.log_ratio_margin(), [](const prospect::scalar_of_t<T>& m) {
    using namespace prospect;
    using R = scalar_of_t<T>;
    // Two exponentials beside DPO's primitives; the sigmoid of one is 1 / (1 + exp).
    const R e = exp(R(0.5) * m);
    return value_and_slope<R>{.value = softplus(-m) + exp(R(0.25) * m),
                              .slope = sigmoid(-m) + detail::reciprocal(R(1) + e)};
  });
}

template <class Loss>
concept has_primitives =
    requires(const Loss& loss, const prospect::pair<float>& p) { primitives(loss, p); };

/// They as a loss of their own.
template <has_primitives Loss>
struct only_primitives {
  static constexpr std::string_view name = "primitives";
  static constexpr bool branch_free = true;

  template <class T>
  constexpr T operator()(const prospect::pair<T>& p) const {
    return primitives(Loss{}, p);
  }
};

}  // namespace bench
