// Supervised fine-tuning: the negative log-likelihood of the next token.
#pragma once

#include <prospect/losses/concepts.hpp>

#include <array>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2 {

/// The negative log-likelihood, averaged over tokens.
///
///   loss = -log pi(y_t)
///
/// Trainers divide by the number of tokens of all ranks and micro-batches (`normaliser::over`). In
/// a mixture with losses of pairs (losses/parts/mixture.hpp) it is their next-token term, over the
/// chosen completions.
struct sft {
  static constexpr std::string_view name = "sft";
  static constexpr bool branch_free = true;
  static constexpr averaging average = averaging::tokens;
  static constexpr std::array<parameter<sft>, 0> parameters{};

  PROSPECT_INLINE static constexpr const char* problem() { return nullptr; }

  template <class T>
  PROSPECT_HD constexpr T operator()(const token<T>& t) const {
    return -t.policy;
  }
};

}  // namespace prospect::inline v2
PROSPECT_STRICT_END
