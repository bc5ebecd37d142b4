// What makes a type a preference loss, and the optional members a loss may have.
#pragma once

#include <prospect/losses/parts/token_exponentials.hpp>
#include <prospect/losses/samples.hpp>

#include <concepts>
#include <string_view>
#include <type_traits>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2 {

/// How the losses of tokens become one.
enum class averaging {
  tokens,          ///< the mean over all scored tokens of the batch
  sequence_means,  ///< each sequence's mean over its scored tokens; then the mean over sequences
  sequences        ///< each sequence's sum over its scored tokens; then the mean over sequences
};

/// A loss is a small value that can be copied to a kernel.
template <class L>
concept loss_value = std::is_trivially_copyable_v<L>;

/// `loss(pair)` is the loss of one preference pair.
template <class L, class R = float>
concept paired_loss = loss_value<L> && requires(const L& loss, const pair<dual<R, 2>>& sample) {
  { loss(sample) } -> std::convertible_to<dual<R, 2>>;
};

/// `loss(unpaired)` is the loss of one completion with binary feedback.
template <class L, class R = float>
concept unpaired_loss =
    loss_value<L> && requires(const L& loss, const unpaired<dual<R, 2>>& sample) {
      { loss(sample) } -> std::convertible_to<dual<R, 2>>;
    };

/// `loss(estimate)` is the loss of one value estimate.
template <class L, class R = float>
concept value_loss =
    loss_value<L> && requires(const L& loss, const value_estimate<dual<R, 1>>& sample) {
      { loss(sample) } -> std::convertible_to<dual<R, 1>>;
    };

/// `loss(token)` is the loss of one scored token; `loss.average` says how tokens are averaged.
template <class L, class R = float>
concept token_loss = loss_value<L> && requires(const L& loss, const token<dual<R, 2>>& sample) {
  { loss(sample) } -> std::convertible_to<dual<R, 2>>;
  { loss.average } -> std::convertible_to<averaging>;
};

/// A token loss that reads its sequence: `loss.contribution(token)` is what each of its scored
/// tokens adds to `token::sum`. It may read everything of a token but the sum.
template <class L>
concept sums_tokens =
    requires(const L& loss, const token<dual<float, 2>>& sample) { loss.contribution(sample); };

/// One of them that promises, by `static constexpr bool detached_sum = true`, to take nothing of
/// the sum but its value: no coefficient then has a part of how the loss changes with it, and the
/// CPU does not ask.
template <class L>
concept detaches_sum = sums_tokens<L> && requires { requires L::detached_sum; };
template <class L>
concept attaches_sum = sums_tokens<L> && !detaches_sum<L>;

/// A loss that promises, by `static constexpr bool branch_free = true`, to choose with `select`,
/// `pick` and the primitives and never to branch on what it is given. The CPU then hands it several
/// examples at once. Without the promise it is given one after the other: slower, and as accurate.
template <class L>
concept branch_free_loss = requires { requires L::branch_free; };

/// Which difference of log-ratios a loss is a function of.
enum class score_difference { of_sums, of_means };

/// A loss that depends on its pair by one difference of log-ratios alone, and says which by `static
/// constexpr auto takes_scores = score_difference::of_sums`: it may be given the difference of
/// other scores (parts/scores.hpp).
template <class L>
concept score_taking_loss = branch_free_loss<L> && requires {
  { L::takes_scores } -> std::convertible_to<score_difference>;
};

/// A loss that is one of several, and can be asked which by `visit(visitor)`: losses/any.hpp.
template <class L>
concept one_of_several = requires { L::most_parameters; };

/// A hyper-parameter: its name on every surface (C, command lines), and where it lives.
template <class L>
struct parameter {
  using member_type = double L::*;
  std::string_view name;
  member_type member;
};

/// Why these hyper-parameters make no sense, or nullptr. A loss without `problem()` accepts all.
template <class L>
PROSPECT_INLINE constexpr const char* problem(const L& loss) {
  if constexpr (requires { loss.problem(); }) {
    return loss.problem();
  } else {
    return nullptr;
  }
}

/// The factor between a log-ratio and an implicit reward: what a member `reward_scale()` says,
/// `beta`, IPO's `tau`, A*PO's `beta2`, or 1.
template <class L>
PROSPECT_HD constexpr double reward_scale(const L& loss) {
  if constexpr (requires { loss.reward_scale(); }) {
    return loss.reward_scale();
  } else if constexpr (requires { loss.beta; }) {
    return static_cast<double>(loss.beta);
  } else if constexpr (requires { loss.tau; }) {
    return static_cast<double>(loss.tau);
  } else if constexpr (requires { loss.beta2; }) {
    return static_cast<double>(loss.beta2);
  } else {
    return 1.0;
  }
}

/// Whether a loss of tokens makes the same of all tokens of a sequence that share an advantage,
/// value and derivatives: what a member `sequence_level()` promises, or no. The CPU then asks about
/// one token of each block of them, whose log-probabilities are 0, unless tokens have advantages,
/// weights or entropies of their own.
template <class L>
PROSPECT_INLINE constexpr bool sequence_level(const L& loss) {
  if constexpr (requires { loss.sequence_level(); }) {
    return loss.sequence_level();
  } else {
    return false;
  }
}

namespace detail {

/// Positive, and so far inside the range of fp32 that neither it nor its inverse leaves it; false
/// for NaN.
PROSPECT_INLINE constexpr bool positive(double x) { return x >= 1e-30 && x <= 1e30; }
PROSPECT_INLINE constexpr bool not_negative(double x) { return x >= 0 && x <= 1e30; }
/// Why class weights make no sense, or nullptr.
PROSPECT_INLINE constexpr const char* problem_of_weights(double desirable, double undesirable) {
  if (!not_negative(desirable)) return "desirable_weight must not be negative (0 to 1e30)";
  if (!not_negative(undesirable)) return "undesirable_weight must not be negative (0 to 1e30)";
  return nullptr;
}
PROSPECT_INLINE constexpr bool of_either_sign(double x) { return x >= -1e30 && x <= 1e30; }

}  // namespace detail

/// The loss of a token, with exponentials where the formula takes them.
template <class L, class T, class E>
PROSPECT_HD constexpr T loss_of(const L& loss, const token<T>& t, const E& exponentials) {
  if constexpr (requires { loss(t, exponentials); }) {
    return loss(t, exponentials);
  } else {
    return loss(t);
  }
}

}  // namespace prospect::inline v2
PROSPECT_STRICT_END
