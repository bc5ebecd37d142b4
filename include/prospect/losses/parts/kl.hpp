// Estimators of KL(policy || reference) from one sample of the policy (Schulman,
// joschu.net/blog/kl-approx.html): what policy-gradient losses add to keep near the reference.
#pragma once

#include <prospect/losses/concepts.hpp>
#include <prospect/losses/parts/along.hpp>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2 {

/// k1 = log pi - log pi_ref: unbiased, of either sign.
template <class T>
PROSPECT_HD constexpr T kl_estimate_1(const token<T>& t) {
  return t.log_reference_ratio();
}
/// k2 = (log pi - log pi_ref)^2 / 2: biased, and its gradient is that of the KL divergence.
template <class T>
PROSPECT_HD constexpr T kl_estimate_2(const token<T>& t) {
  return 0.5 * square(t.log_reference_ratio());
}
/// k3 = pi_ref / pi - 1 + log pi - log pi_ref: unbiased and never negative.
template <class T, class E = token_exponentials>
PROSPECT_HD constexpr T kl_estimate_3(const token<T>& t, const E& exponentials = {}) {
  return along(t.log_reference_ratio(),
               [&](const scalar_of_t<T>& x) { return exponentials.k3(x); });
}
/// r k3 with r = pi / pi_old attached, whose gradient is r (log pi - log pi_ref): k3 of samples of
/// the old policy (DeepSeek-V3.2, arXiv:2512.02556). What cancels in it is left out beforehand.
template <class T, class E = token_exponentials>
PROSPECT_HD constexpr T kl_estimate_3_corrected(const token<T>& t, const E& exponentials = {}) {
  using R = scalar_of_t<T>;
  const R ratio = exponentials.ratio(value_of(t.log_ratio()));
  return along(t.log_reference_ratio(), [&](const R& x) {
    return value_and_slope<R>{.value = ratio * exponentials.k3(x).value, .slope = ratio * x};
  });
}

/// beta times k3, corrected or not; nothing, read or computed, where beta is 0.
template <class T, class E = token_exponentials>
PROSPECT_HD constexpr T kl_penalty(const token<T>& t, double beta, double corrected,
                                   const E& exponentials = {}) {
  if (beta == 0) return T(0);
  const T k3 =
      corrected == 0 ? kl_estimate_3(t, exponentials) : kl_estimate_3_corrected(t, exponentials);
  return static_cast<scalar_of_t<T>>(beta) * k3;
}

}  // namespace prospect::inline v2
PROSPECT_STRICT_END
