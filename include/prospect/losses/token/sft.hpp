// Supervised fine-tuning: the negative log-likelihood per token.
#pragma once

#include <prospect/config.hpp>

#include <string_view>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v1 {

/// -sum log pi(token) / tokens. In a mixture with losses of pairs (losses/parts/mixture.hpp) it is
/// their next-token term, over the chosen completions.
struct sft {
  static constexpr std::string_view name = "sft";
};

}  // namespace prospect::inline v1
PROSPECT_STRICT_END
