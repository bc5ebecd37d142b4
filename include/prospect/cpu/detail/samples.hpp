// Samples as a loss takes them, several at once or one by one, and what it makes of them. Rows that
// do not count are neutral, whatever the batch holds there.
#pragma once

#include <prospect/batch.hpp>
#include <prospect/cpu/detail/rows.hpp>
#include <prospect/losses/differentiate.hpp>
#include <prospect/losses/parts/next_token.hpp>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cpu::detail {
inline namespace PROSPECT_CPU_ISA {

/// Whether the primitives take several numbers at once. In fp64 they are the C library's.
template <class R>
inline constexpr bool has_vector_primitives =
#if defined(__CUDACC__)
    false;
#else
    std::same_as<R, float>;
#endif

/// Whether a loss is given several samples at once.
template <class Loss, class R>
inline constexpr bool lanewise = branch_free_loss<Loss> && has_vector_primitives<R>;

/// f of the loss itself, where it is one of several, with its scores: asked before a loop, and not
/// inside.
template <class Loss, class F>
PROSPECT_INLINE auto of_itself(const Loss& loss, const F& f) {
  if constexpr (one_of_several<Loss>) {
    return loss.visit_scored(f);
  } else {
    return f(loss);
  }
}

/// Several completions. Not completion<several<R>>, whose functions nvcc would want for the device.
template <std::floating_point R>
struct completions {
  several<R> policy, ratio, tokens;

  completion<R> lane(int k) const {
    return {.policy = policy.lane[k], .ratio = ratio.lane[k], .tokens = tokens.lane[k]};
  }
};

/// Where a block of completions is.
template <std::floating_point R>
struct completions_at {
  const R* policy;
  const R* reference;  ///< null where none is given
  const std::int32_t* tokens;

  PROSPECT_INLINE several<R> tokens_of(int i) const { return load_several<R>(tokens + i); }
  PROSPECT_INLINE flag_of<several<R>> counted(int i) const { return several<R>(0) < tokens_of(i); }

  /// Those from i on, neutral where they are not kept. A reference that is not given was found
  /// unread, and rewards are then those of the policy alone, as without one they are defined.
  PROSPECT_INLINE completions<R> several_of(int i, flag_of<several<R>> kept) const {
    const several<R> none = 0;
    const several<R> p = load_several<R>(policy + i);
    several<R> ratio = p;
    if (reference != nullptr) ratio = p - load_several<R>(reference + i);
    return {.policy = select(kept, p, none),
            .ratio = select(kept, ratio, none),
            .tokens = select(kept, tokens_of(i), several<R>(1))};
  }
  bool finite(std::int64_t i) const {
    const R ratio = reference == nullptr ? R(0) : policy[i] - reference[i];
    return prospect::detail::is_finite(policy[i]) && prospect::detail::is_finite(ratio);
  }
};

/// Completions of a batch, as their blocks are read.
template <std::floating_point R>
struct completion_rows {
  row_reader<R> policy, reference;
  element_reader<std::int32_t> tokens;

  completion_rows(const const_any_row& policy_row, const const_any_row& reference_row,
                  strided_span<const std::int32_t> token_row, indices_at through = nullptr)
      : policy{policy_row, through},
        reference{reference_row, through},
        tokens{token_row, through} {}

  completions_at<R> read(range at) {
    return {.policy = policy.read(at), .reference = reference.read(at), .tokens = tokens.read(at)};
  }
};

/// weight x; a weight of 0 makes everything 0.
template <std::floating_point R>
PROSPECT_INLINE several<R> weighted(several<R> weight, several<R> x) {
  const several<R> none = 0;
  return select(weight == none, none, weight * x);
}

/// The losses and derivatives of several pairs; those that do not count are not asked for.
template <std::floating_point R, class Loss>
paired_value<several<R>> values_of(const Loss& loss, const completions<R>& chosen,
                                   const completions<R>& rejected, several<R> margin,
                                   flag_of<several<R>> counted) {
  if constexpr (lanewise<Loss, R>) {
    return differentiate(
        loss, pair<several<R>>{.chosen = {chosen.policy, chosen.ratio, chosen.tokens},
                               .rejected = {rejected.policy, rejected.ratio, rejected.tokens},
                               .margin = margin});
  } else {
    paired_value<several<R>> values{};
    for (int k = 0; k < lanes<R>; ++k) {
      if (!counted[k]) continue;
      const auto value = differentiate(loss, pair<R>{.chosen = chosen.lane(k),
                                                     .rejected = rejected.lane(k),
                                                     .margin = margin.lane[k]});
      values.loss.lane[k] = value.loss;
      values.d_chosen.lane[k] = value.d_chosen;
      values.d_rejected.lane[k] = value.d_rejected;
    }
    return values;
  }
}

/// The same of several completions.
template <std::floating_point R, class Loss>
unpaired_value<several<R>> values_of(const Loss& loss, const completions<R>& answer, several<R> z,
                                     flag_of<several<R>> desirable, several<R> target,
                                     flag_of<several<R>> counted) {
  if constexpr (lanewise<Loss, R>) {
    return differentiate(
        loss, unpaired<several<R>>{.answer = {answer.policy, answer.ratio, answer.tokens},
                                   .z = z,
                                   .desirable = desirable,
                                   .target = target});
  } else {
    unpaired_value<several<R>> values{};
    for (int k = 0; k < lanes<R>; ++k) {
      if (!counted[k]) continue;
      const auto value = differentiate(loss, unpaired<R>{.answer = answer.lane(k),
                                                         .z = z.lane[k],
                                                         .desirable = desirable[k],
                                                         .target = target.lane[k]});
      values.loss.lane[k] = value.loss;
      values.d_policy.lane[k] = value.d_policy;
      values.d_z.lane[k] = value.d_z;
    }
    return values;
  }
}

}  // namespace PROSPECT_CPU_ISA
}  // namespace prospect::inline v2::cpu::detail
PROSPECT_STRICT_END
