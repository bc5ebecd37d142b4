// From a prospect_loss of the C API to a loss of the library.
#pragma once

#include "boundary.hpp"

#include <prospect/losses/any.hpp>

#include <cstring>
#include <utility>

namespace prospect::kernels {

/// What stands in a prospect_loss. The tag is the version's, because a loss's place in the list is:
/// one that another version has made, or nobody, is no loss.
struct loss_content {
  static constexpr std::uint64_t this_version =
      0x70726f73'00000000U + PROSPECT_VERSION_MAJOR * 10000U + PROSPECT_VERSION_MINOR * 100U +
      PROSPECT_VERSION_PATCH;

  std::uint64_t tag;
  std::int64_t id;
  double alpha;  ///< of its score_transform
  std::int64_t jensen_shannon;
  std::int64_t average;  ///< of a loss of tokens
  double value[sizeof(prospect_loss) / sizeof(double) - 5];
};
static_assert(sizeof(loss_content) == sizeof(prospect_loss));

/// Calls `visit(loss)` with the loss at this position of losses.def, at its defaults. False beyond
/// the end.
template <class Visitor>
bool with_loss(std::int64_t id, Visitor&& visit) {
  std::int64_t index = 0;
  bool found = false;
  for_each_loss([&](auto loss) {
    if (index++ != id) return;
    found = true;
    visit(loss);
  });
  return found;
}

/// The same with the caller's hyper-parameters filled in.
template <class Visitor>
void with_loss(const prospect_loss* pointer, Visitor&& visit) {
  loss_content content;
  std::memcpy(&content, &require(pointer, "loss"), sizeof content);
  const bool ours = content.tag == loss_content::this_version;
  const bool found = ours && with_loss(content.id, [&](auto loss) {
                       static_assert(loss.parameters.size() <= std::size(loss_content{}.value));
                       std::size_t i = 0;
                       for (const auto& p : loss.parameters) loss.*p.member = content.value[i++];
                       visit(loss);
                     });
  if (!found) fail(PROSPECT_INVALID_ARGUMENT, "loss was not made by prospect_loss_init");
}

inline loss_content content_of(const prospect_loss& loss) {
  loss_content content;
  std::memcpy(&content, &loss, sizeof content);
  return content;
}

/// The scores that a loss of `with_loss` is one of.
inline score_transform score_of(const prospect_loss& loss) {
  const loss_content content = content_of(loss);
  return {.alpha = content.alpha, .jensen_shannon = content.jensen_shannon != 0};
}

/// Calls `visit(loss)` with the caller's loss as any of its kind, one type for each kind.
template <class Visitor>
void with_any_loss(const prospect_loss* pointer, Visitor&& visit) {
  with_loss(pointer, [&]<class L>(const L& loss) {
    if constexpr (paired_loss<L>) {
      any_paired any{loss};
      any.score = score_of(*pointer);
      visit(std::as_const(any));
    } else if constexpr (unpaired_loss<L>) {
      visit(any_unpaired{loss});
    } else {
      any_token any{loss};
      any.average = static_cast<averaging>(content_of(*pointer).average);
      visit(std::as_const(any));
    }
  });
}

}  // namespace prospect::kernels
