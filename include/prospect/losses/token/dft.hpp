// Dynamic fine-tuning: next-token loss, each token weighted by its own probability.
#pragma once

#include <prospect/losses/concepts.hpp>

#include <array>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2 {

/// DFT (Wu et al. 2025, arXiv:2508.05629, eq. 9), averaged over tokens.
///
///   loss = -sg(pi) log pi
struct dft {
  static constexpr std::string_view name = "dft";
  static constexpr bool branch_free = true;
  static constexpr averaging average = averaging::tokens;
  static constexpr std::array<parameter<dft>, 0> parameters{};

  PROSPECT_INLINE static constexpr const char* problem() { return nullptr; }

  template <class T>
  PROSPECT_HD constexpr T operator()(const token<T>& t) const {
    return -exp(value_of(t.policy)) * t.policy;
  }
};

}  // namespace prospect::inline v2
PROSPECT_STRICT_END
