// What a loss is given: one pair, one completion with a thumb up or down, or one token and what it
// was worth. The scalar `T` is a plain number or a dual; the sign conventions of the whole library
// stand here.
#pragma once

#include <prospect/core/dual.hpp>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2 {

/// One completion, summed over its scored tokens. All log-probabilities are natural (nats).
///
/// The log-ratio is stored, not the reference: it is formed in the widest type at hand, before
/// anything is rounded or scaled. A loss without a reference reads `policy` alone.
template <class T>
struct completion {
  T policy{};                ///< log pi(y|x), summed
  T ratio{};                 ///< log pi(y|x) - log pi_ref(y|x), summed
  scalar_of_t<T> tokens{1};  ///< number of scored tokens, at least 1

  PROSPECT_HD constexpr T log_ratio() const noexcept { return ratio; }
  PROSPECT_HD constexpr T mean_log_ratio() const noexcept { return ratio / tokens; }
  PROSPECT_HD constexpr T mean_policy() const noexcept { return policy / tokens; }
};

/// Two completions of one prompt, of which the first is preferred, and the margin it must lead by.
template <class T>
struct pair {
  completion<T> chosen{};
  completion<T> rejected{};
  scalar_of_t<T> margin{};  ///< nats; usually 0

  /// The implicit reward margin of DPO before beta: by how much the log-ratio of the chosen
  /// completion exceeds that of the rejected one, and what it must exceed it by.
  PROSPECT_HD constexpr T log_ratio_margin() const noexcept {
    return chosen.log_ratio() - rejected.log_ratio() - margin;
  }
  /// The same of means per token; the margin then counts per token.
  PROSPECT_HD constexpr T mean_log_ratio_margin() const noexcept {
    return chosen.mean_log_ratio() - rejected.mean_log_ratio() - margin;
  }
  /// The margin of losses without a reference, of sums and of means per token.
  PROSPECT_HD constexpr T policy_margin() const noexcept {
    return chosen.policy - rejected.policy - margin;
  }
  PROSPECT_HD constexpr T mean_policy_margin() const noexcept {
    return chosen.mean_policy() - rejected.mean_policy() - margin;
  }
};

/// One completion with binary feedback, the reference point z it is measured against (nats), and a
/// number of its own, for losses that regress on one.
template <class T>
struct unpaired {
  completion<T> answer{};
  T z{};
  flag_of<scalar_of_t<T>> desirable{};
  scalar_of_t<T> target{};

  PROSPECT_HD constexpr T log_ratio() const noexcept { return answer.log_ratio(); }
  /// One of two constants, by class.
  PROSPECT_HD constexpr scalar_of_t<T> pick(double if_desirable, double if_not) const noexcept {
    using R = scalar_of_t<T>;
    return select(desirable, R(if_desirable), R(if_not));
  }
  /// +1 for a desirable completion, -1 for an undesirable one.
  PROSPECT_HD constexpr scalar_of_t<T> sign() const noexcept { return pick(1, -1); }
};

/// What a value head says of one token, what it said when the completion was sampled, and the
/// return that came of it.
template <class T>
struct value_estimate {
  T value{};
  scalar_of_t<T> old_value{};
  scalar_of_t<T> returns{};
};

/// One scored token of a sequence that was sampled from an older policy, and what it was worth. All
/// log-probabilities are natural (nats).
template <class T>
struct token {
  T policy{};                  ///< log pi(y_t)
  T ratio{};                   ///< log pi(y_t) - log pi_old(y_t): the importance ratio's logarithm
  T reference_ratio{};         ///< log pi(y_t) - log pi_ref(y_t)
  scalar_of_t<T> advantage{};  ///< of the token, or of its sequence
  T sum{};                     ///< of what the loss has each token of the sequence add, attached
  scalar_of_t<T> tokens{1};    ///< number of scored tokens of the sequence, at least 1

  /// log (pi / pi_old), and that of the policy and the reference.
  PROSPECT_HD constexpr T log_ratio() const noexcept { return ratio; }
  PROSPECT_HD constexpr T log_reference_ratio() const noexcept { return reference_ratio; }
  /// The mean over the sequence's scored tokens of what each adds.
  PROSPECT_HD constexpr T mean() const noexcept { return sum / tokens; }
};

}  // namespace prospect::inline v2
PROSPECT_STRICT_END
