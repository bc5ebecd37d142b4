// An estimate of the KL divergence from the reference as a loss: k3, never negative.
#pragma once

#include <prospect/losses/concepts.hpp>
#include <prospect/losses/parts/kl.hpp>

#include <array>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2 {

/// k3 (Schulman, joschu.net/blog/kl-approx.html), averaged over tokens; the gradient is that of the
/// estimate.
///
///   loss = pi_ref / pi - 1 + log pi - log pi_ref
struct kl_k3 {
  static constexpr std::string_view name = "kl_k3";
  static constexpr bool branch_free = true;
  static constexpr averaging average = averaging::tokens;
  static constexpr std::array<parameter<kl_k3>, 0> parameters{};

  PROSPECT_INLINE static constexpr const char* problem() { return nullptr; }

  template <class T, class E = token_exponentials>
  PROSPECT_HD constexpr T operator()(const token<T>& t, const E& exponentials = {}) const {
    return kl_estimate_3(t, exponentials);
  }
};

}  // namespace prospect::inline v2
PROSPECT_STRICT_END
