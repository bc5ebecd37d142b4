// A block of samples: read from a batch, given to a loss as vectors or one by one, and what comes
// out of it. Rows that do not count are neutral in it, whatever the batch holds there.
#pragma once

#include <prospect/batch.hpp>
#include <prospect/cpu/detail/blocks.hpp>
#include <prospect/losses/differentiate.hpp>

namespace prospect::inline v0::cpu::detail {
inline namespace PROSPECT_CPU_ISA {

/// Whether a loss is given several samples at once. In fp64 the primitives are the C library's.
template <class Loss, class R>
inline constexpr bool lanewise =
#if defined(__CUDACC__)
    false;
#else
    branch_free_loss<Loss> && std::same_as<R, float>;
#endif

/// Completions as a loss sees them. Rows that are not given were found unread, and stay at neutral
/// values.
template <std::floating_point R>
struct completion_block {
  block<R> policy, ratio;
  block<R> tokens;  ///< 0 in a row that does not count, until `keep`

  template <storage S>
  void read(strided_span<const S> from_policy, strided_span<const S> from_reference,
            strided_span<const std::int32_t> from_tokens, range at) {
    detail::read(from_policy, at, policy);
    if (from_reference.empty()) {
      detail::fill(ratio, R(0), at.count);
    } else {
      detail::read(from_reference, at, ratio);
      for (int i = 0; i < block_size; i += lanes<R>) {
        store_several(ratio, i, load_several(policy, i) - load_several(ratio, i));
      }
    }
    if (from_tokens.empty()) {
      detail::fill(tokens, R(1), at.count);
    } else {
      detail::read(from_tokens, at, tokens);
    }
  }

  void keep(const block<R>& counted) {
    for (int i = 0; i < block_size; i += lanes<R>) {
      const auto kept = several<R>(0) < load_several(counted, i);
      store_several(policy, i, select(kept, load_several(policy, i), several<R>(0)));
      store_several(ratio, i, select(kept, load_several(ratio, i), several<R>(0)));
      store_several(tokens, i, select(kept, load_several(tokens, i), several<R>(1)));
    }
  }

  PROSPECT_INLINE completion<several<R>> several_at(int i) const {
    return {.policy = load_several(policy, i),
            .ratio = load_several(ratio, i),
            .tokens = load_several(tokens, i)};
  }
  completion<R> at(int i) const {
    return {.policy = policy[i], .ratio = ratio[i], .tokens = tokens[i]};
  }
};

template <std::floating_point R>
struct paired_block {
  completion_block<R> chosen, rejected;
  block<R> counted;  ///< 1 or 0
  block<R> loss, d_chosen, d_rejected;
  block<R> reward_chosen, reward_rejected;

  template <storage S>
  void read(const paired_batch<S>& in, range at) {
    chosen.read(in.policy_chosen, in.reference_chosen, in.chosen_tokens, at);
    rejected.read(in.policy_rejected, in.reference_rejected, in.rejected_tokens, at);
    if (at.count == block_size && in.chosen_tokens.empty() && in.rejected_tokens.empty()) {
      return fill(counted, R(1), block_size);
    }
    for (int i = 0; i < block_size; i += lanes<R>) {
      const several<R> none = 0;
      const several<R> one = 1;
      const several<R> first = select(none < load_several(chosen.tokens, i), one, none);
      store_several(counted, i, select(none < load_several(rejected.tokens, i), first, none));
    }
    chosen.keep(counted);
    rejected.keep(counted);
  }

  template <class Loss>
  [[gnu::flatten]] void differentiate(const Loss& loss_function) {
    if constexpr (lanewise<Loss, R>) {
      for (int i = 0; i < block_size; i += lanes<R>) {
        const auto value = prospect::differentiate(
            loss_function,
            pair<several<R>>{.chosen = chosen.several_at(i), .rejected = rejected.several_at(i)});
        store_several(loss, i, value.loss);
        store_several(d_chosen, i, value.d_chosen);
        store_several(d_rejected, i, value.d_rejected);
      }
    } else {
      for (int i = 0; i < block_size; ++i) {
        paired_value<R> value{};
        if (counted[i] > 0) {
          value = prospect::differentiate(
              loss_function, pair<R>{.chosen = chosen.at(i), .rejected = rejected.at(i)});
        }
        loss[i] = value.loss;
        d_chosen[i] = value.d_chosen;
        d_rejected[i] = value.d_rejected;
      }
    }
  }
};

template <std::floating_point R>
struct unpaired_block {
  completion_block<R> answer;
  block<R> counted;    ///< 1 or 0
  block<R> desirable;  ///< 0 is a thumb down
  block<R> loss, d_policy, d_z;
  block<R> reward;

  template <storage S>
  void read(const unpaired_batch<S>& in, range at) {
    answer.read(in.policy, in.reference, in.tokens, at);
    detail::read(in.desirable, at, desirable);
    if (at.count == block_size && in.tokens.empty()) return fill(counted, R(1), block_size);
    for (int i = 0; i < block_size; i += lanes<R>) {
      const several<R> none = 0;
      const several<R> one = 1;
      store_several(counted, i, select(none < load_several(answer.tokens, i), one, none));
    }
    answer.keep(counted);
  }

  /// Each class against its own reference point.
  template <class Loss>
  [[gnu::flatten]] void differentiate(const Loss& loss_function, double z_desirable,
                                      double z_undesirable) {
    if constexpr (lanewise<Loss, R>) {
      for (int i = 0; i < block_size; i += lanes<R>) {
        const auto up = several<R>(0) < load_several(desirable, i);
        const auto value = prospect::differentiate(
            loss_function, unpaired<several<R>>{
                               .answer = answer.several_at(i),
                               .z = select(up, several<R>(z_desirable), several<R>(z_undesirable)),
                               .desirable = up});
        store_several(loss, i, value.loss);
        store_several(d_policy, i, value.d_policy);
        store_several(d_z, i, value.d_z);
      }
    } else {
      for (int i = 0; i < block_size; ++i) {
        unpaired_value<R> value{};
        const bool up = desirable[i] > 0;
        if (counted[i] > 0) {
          value = prospect::differentiate(
              loss_function, unpaired<R>{.answer = answer.at(i),
                                         .z = static_cast<R>(up ? z_desirable : z_undesirable),
                                         .desirable = up});
        }
        loss[i] = value.loss;
        d_policy[i] = value.d_policy;
        d_z[i] = value.d_z;
      }
    }
  }
};

}  // namespace PROSPECT_CPU_ISA
}  // namespace prospect::inline v0::cpu::detail
