// An estimate of the KL divergence from the reference as a loss: k1, the log-ratio itself.
#pragma once

#include <prospect/losses/concepts.hpp>
#include <prospect/losses/parts/kl.hpp>

#include <array>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2 {

/// k1 (Schulman, joschu.net/blog/kl-approx.html), averaged over tokens; the gradient is that of the
/// estimate.
///
///   loss = log pi - log pi_ref
struct kl_k1 {
  static constexpr std::string_view name = "kl_k1";
  static constexpr bool branch_free = true;
  static constexpr averaging average = averaging::tokens;
  static constexpr std::array<parameter<kl_k1>, 0> parameters{};

  PROSPECT_INLINE static constexpr const char* problem() { return nullptr; }

  template <class T>
  PROSPECT_HD constexpr T operator()(const token<T>& t) const {
    return kl_estimate_1(t);
  }
};

}  // namespace prospect::inline v2
PROSPECT_STRICT_END
