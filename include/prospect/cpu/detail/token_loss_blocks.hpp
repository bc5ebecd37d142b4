// What a block of tokens of one loss goes through: the sums that its tokens add to, and then their
// losses, coefficients and what is logged of them.
#pragma once

#include <prospect/cpu/detail/past_caches.hpp>
#include <prospect/cpu/detail/sequence_sums.hpp>
#include <prospect/cpu/detail/token_log.hpp>
#include <prospect/cpu/detail/token_strip.hpp>

#include <algorithm>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cpu::detail {
inline namespace PROSPECT_CPU_ISA {

/// Where the results of a block of tokens go.
template <std::floating_point R>
struct token_results_at {
  results_at<R> loss, d_policy, d_entropy;
  bool has_d_entropy = false;

  bool finite(std::int64_t i) const {
    return loss.finite(i) && d_policy.finite(i) && (!has_d_entropy || d_entropy.finite(i));
  }
};

/// What a block of tokens of one loss goes through. Only a loss that sums has the first: what its
/// tokens contribute; and unless the sum is detached the second: how the loss changes with that.
/// Then the results, of each kind of block.
template <std::floating_point R>
struct token_blocks {
  using sum = double (*)(const void* loss, const tokens_at<R>& rows, int n,
                         const sequence_terms& of);
  using differentiate = bool (*)(const void* loss, const tokens_at<R>& rows,
                                 const token_results_at<R>& out, int n, const sequence_terms& of,
                                 double entropy_coef, tally<token_sum::size>& sums);
  bool sequence_level = false;
  sum contribution = nullptr, d_sum = nullptr;
  differentiate whole, whole_with_reference, any;
};

/// value(i) of the tokens from i on, those of a block that are kept, added up.
template <std::floating_point R, class F>
PROSPECT_INLINE double sum_of_block(const tokens_at<R>& rows, int n, const F& value) {
  tally<1> sums;
  running_tally<1> here{sums};
  for (int i = 0; i < n; i += lanes<R>) {
    here.add(0, i, select(rows.kept(i), value(i), several<R>(0)));
  }
  here.store_to(sums);
  return sums.total(0);
}

template <std::floating_point R, class Loss>
[[gnu::flatten]] double contribution_of_block(const void* of_loss, const tokens_at<R>& block, int n,
                                              const sequence_terms& of) {
  const Loss loss = *static_cast<const Loss*>(of_loss);
  const tokens_at<R> rows = block;
  return sum_of_block(rows, n, [&](int i) {
    ask_for(rows.policy + rows.ahead + i);
    if (rows.has_old) ask_for(rows.old + rows.ahead + i);
    return contributions_of<R>(loss, rows.several_of(i), of, rows.kept(i)).value;
  });
}

template <std::floating_point R, class Loss>
[[gnu::flatten]] double d_sum_of_block(const void* of_loss, const tokens_at<R>& block, int n,
                                       const sequence_terms& of) {
  const Loss loss = *static_cast<const Loss*>(of_loss);
  const tokens_at<R> rows = block;
  return sum_of_block(rows, n, [&](int i) {
    return weighted(load_several(rows.weight + i),
                    values_of<R>(loss, rows.several_of(i), of, rows.kept(i)).d_sum);
  });
}

/// The losses of the tokens from i on and their derivatives, times their weights, with the bonus of
/// their entropies.
template <std::floating_point R>
PROSPECT_INLINE token_value<several<R>> with_weight_and_bonus(token_value<several<R>> v,
                                                              const tokens_at<R>& rows, int i,
                                                              double entropy_coef) {
  const several<R> weight = load_several(rows.weight + i);
  const several<R> entropy = load_several(rows.entropy + i);
  v.d_policy = weighted(weight, v.d_policy);
  v.loss = weighted(weight, v.loss - several<R>(entropy_coef) * entropy);
  return v;
}

/// A block's losses and coefficients, added to the sums with what else is logged of its tokens, and
/// whether all is finite. What a loss and a mean both need, such as pi / pi_old, is computed once.
template <block_kind kind, std::floating_point R, class Loss>
[[gnu::flatten]] bool token_results_of_block(const void* of_loss, const tokens_at<R>& block,
                                             const token_results_at<R>& to, int n,
                                             const sequence_terms& of, double entropy_coef,
                                             tally<token_sum::size>& sums) {
  constexpr bool with_options = kind == block_kind::any;
  // Copies, which no result can overlap.
  const Loss loss = *static_cast<const Loss*>(of_loss);
  const sequence_terms terms = of;
  tokens_at<R> rows = block;
  if (!with_options) rows.has_reference = kind == block_kind::whole_with_reference;
  const several<R> none = 0;
  [[maybe_unused]] const several<R> advantage = load_several(rows.advantage);
  const times<R> factor{terms.factor};
  token_log<R> log{rows, sums};
  token_value<several<R>> of_all;
  const bool sequence_level = !with_options && prospect::sequence_level(loss);
  if constexpr (!with_options) {
    log.look_at(advantage);
    if (sequence_level) {
      of_all = values_of<R>(loss, {.advantage = advantage}, terms, all_kept{},
                            own_exponentials<kind != block_kind::whole>{});
    }
  }
  token_strip<R> strip;
  strip_results<R, strip.most> loss_row{to.loss.row, n, to.loss.past_caches};
  strip_results<R, strip.most> d_policy_row{to.d_policy.row, n, to.d_policy.past_caches};
  for (int begin = 0; begin < n; begin += strip.most) {
    const int count = (std::min)(n - begin, strip.most);
    const tokens_at<R> here = rows.from(begin, with_options);
    const strip_at<R> at = strip.template fill<kind>(here, count);
    R* const losses = loss_row.from(begin);
    R* const coefficients = d_policy_row.from(begin);
    for (int i = 0; i < count; i += lanes<R>) {
      ask_for(at.soon + i);
      const auto is_kept = kept<kind>(here, i);
      tokens<R> t = at.several_of(i);
      if constexpr (!with_options) t.advantage = advantage;
      token_value<several<R>> v = of_all;
      if (!sequence_level) {
        v = rows.has_reference
                ? values_of<R>(loss, t, terms, is_kept, at.template exponentials_of<true>(i))
                : values_of<R>(loss, t, terms, is_kept, at.template exponentials_of<false>(i));
      }
      if constexpr (with_options) {
        v = with_weight_and_bonus(v, here, i, entropy_coef);
        log.add_options(here, i, is_kept);
      }
      several<R> d = v.d_policy;
      if constexpr (attaches_sum<Loss>) {
        d += contributions_of<R>(loss, t, terms, is_kept).slope * several<R>(terms.d_sum);
      }
      const several<R> value = select(is_kept, v.loss, none);
      const several<R> coefficient = select(is_kept, factor(d), none);
      store_several(losses + i, value);
      store_several(coefficients + i, coefficient);
      log.look_at(load_several(at.probed + i), coefficient);
      log.count_clipped(is_kept && d == none, t.advantage, !with_options);
    }
    log.add_strip(count, losses, at.ratio, at.k3);
    loss_row.add(count);
    d_policy_row.add(count);
  }
  loss_row.finish();
  d_policy_row.finish();
  return log.store_to(sums, n);
}

template <std::floating_point R, class Loss>
token_blocks<R> token_blocks_of(const Loss& loss) {
  token_blocks<R> blocks{
      .sequence_level = sequence_level(loss),
      .whole = token_results_of_block<block_kind::whole, R, Loss>,
      .whole_with_reference = token_results_of_block<block_kind::whole_with_reference, R, Loss>,
      .any = token_results_of_block<block_kind::any, R, Loss>};
  if constexpr (sums_tokens<Loss>) {
    blocks.contribution = contribution_of_block<R, Loss>;
    if constexpr (attaches_sum<Loss>) blocks.d_sum = d_sum_of_block<R, Loss>;
  }
  return blocks;
}

}  // namespace PROSPECT_CPU_ISA
}  // namespace prospect::inline v2::cpu::detail
PROSPECT_STRICT_END
