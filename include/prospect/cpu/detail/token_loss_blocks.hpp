// What a block of tokens of one loss goes through: the sums that its tokens add to, and then their
// losses, coefficients and what is logged of them.
#pragma once

#include <prospect/cpu/detail/sequence_sums.hpp>
#include <prospect/cpu/detail/token_log.hpp>
#include <prospect/cpu/detail/token_samples.hpp>

#include <algorithm>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cpu::detail {
inline namespace PROSPECT_CPU_ISA {

/// Where the results of a block of tokens go.
template <std::floating_point R>
struct token_results_at {
  results_at<R> loss, d_policy, d_entropy;
  bool has_d_entropy;

  bool finite(std::int64_t i) const {
    return loss.finite(i) && d_policy.finite(i) && (!has_d_entropy || d_entropy.finite(i));
  }
};

/// What a block of tokens of one loss goes through. Only a loss that sums has the first two: what
/// its tokens contribute, and how the loss changes with that, in which order they are called. Then
/// the results, of tokens that share an advantage and have no weight and no entropy, or of any.
template <std::floating_point R>
struct token_blocks {
  using sum = double (*)(const void* loss, const tokens_at<R>& rows, int n,
                         const sequence_terms& of);
  using differentiate = bool (*)(const void* loss, const tokens_at<R>& rows,
                                 const token_results_at<R>& out, int n, const sequence_terms& of,
                                 double entropy_coef, tally<token_sum::size>& sums);
  bool sequence_level = false;
  sum contribution = nullptr, d_sum = nullptr;
  differentiate plain, with_options;
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

/// What is worked out of a strip of tokens in loops of its own, as sums are: a processor looks so
/// many instructions ahead, and has several tokens under way at once only in a loop of few. Strips
/// are short and rows are asked for in different loops, since memory is best busy all the time.
template <std::floating_point R>
struct token_strip {
  static constexpr int most = 128;
  alignas(64) R ratio[most];
  alignas(64) R k3[most];
  alignas(64) R k3_slope[most];

  /// Of the tokens [begin, end); 0 where they are not kept.
  PROSPECT_INLINE void fill(const tokens_at<R>& rows, int begin, int end) {
    const several<R> none = 0;
    if (rows.has_old) {
      for (int i = begin; i < end; i += lanes<R>) {
        const several<R> x = load_several(rows.policy + i) - load_several(rows.old + i);
        store_several(ratio + (i - begin), select(rows.kept(i), ratios(x), none));
      }
    }
    if (rows.has_reference) {
      for (int i = begin; i < end; i += lanes<R>) {
        const several<R> x = load_several(rows.policy + i) - load_several(rows.reference + i);
        const value_and_slope<several<R>> at = divergences(x);
        rows.ask_ahead_with_reference(i);
        store_several(k3 + (i - begin), select(rows.kept(i), at.value, none));
        store_several(k3_slope + (i - begin), at.slope);
      }
    }
  }
  /// Of those from the i-th of the strip on.
  PROSPECT_INLINE known_exponentials<R> known(const tokens_at<R>& rows, int i) const {
    known_exponentials<R> e;
    if (rows.has_old) e.known_ratio = load_several(ratio + i);
    if (rows.has_reference) e.known_k3 = {load_several(k3 + i), load_several(k3_slope + i)};
    return e;
  }
};

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
template <bool with_options, std::floating_point R, class Loss>
[[gnu::flatten]] bool token_results_of_block(const void* of_loss, const tokens_at<R>& block,
                                             const token_results_at<R>& to, int n,
                                             const sequence_terms& of, double entropy_coef,
                                             tally<token_sum::size>& sums) {
  // Copies, which no result can overlap.
  const Loss loss = *static_cast<const Loss*>(of_loss);
  const tokens_at<R> rows = block;
  R* const losses = to.loss.row;
  R* const coefficients = to.d_policy.row;
  const sequence_terms terms = of;
  const several<R> none = 0;
  [[maybe_unused]] const several<R> advantage = load_several(rows.advantage);
  const times<R> factor{terms.factor};
  token_log<R> log{rows, sums};
  token_value<several<R>> of_all;
  const bool sequence_level = !with_options && prospect::sequence_level(loss);
  if constexpr (!with_options) {
    log.look_at(advantage);
    const auto all = none < several<R>(1);
    if (sequence_level) of_all = values_of<R>(loss, {.advantage = advantage}, terms, all);
  }
  token_strip<R> strip;
  const int size = rows.in_strips() ? strip.most : n;
  for (int begin = 0; begin < n; begin += size) {
    const int end = (std::min)(begin + size, n);
    strip.fill(rows, begin, end);
    for (int i = begin; i < end; i += lanes<R>) {
      rows.ask_ahead_with_old(i);
      rows.ask_ahead_to_write(coefficients + i);
      const auto kept = rows.kept(i);
      tokens<R> t = rows.several_of(i);
      if constexpr (!with_options) t.advantage = advantage;
      token_value<several<R>> v = of_all;
      if (!sequence_level) {
        v = values_of<R>(loss, t, terms, kept, strip.known(rows, i - begin));
      }
      if constexpr (with_options) {
        v = with_weight_and_bonus(v, rows, i, entropy_coef);
        log.add_options(rows, i, kept);
      }
      several<R> d = v.d_policy;
      if constexpr (sums_tokens<Loss>) {
        d += contributions_of<R>(loss, t, terms, kept).slope * several<R>(terms.d_sum);
      }
      const several<R> value = select(kept, v.loss, none);
      const several<R> coefficient = select(kept, factor(d), none);
      store_several(losses + i, value);
      store_several(coefficients + i, coefficient);
      log.add_tokens(i, t, value, coefficient);
      log.count_clipped(kept && d == none, t.advantage, !with_options);
    }
    log.add_strip(end - begin, losses + begin, strip.ratio, strip.k3);
  }
  return log.store_to(sums);
}

template <std::floating_point R, class Loss>
token_blocks<R> token_blocks_of(const Loss& loss) {
  token_blocks<R> blocks{.sequence_level = sequence_level(loss),
                         .plain = token_results_of_block<false, R, Loss>,
                         .with_options = token_results_of_block<true, R, Loss>};
  if constexpr (sums_tokens<Loss>) {
    blocks.contribution = contribution_of_block<R, Loss>;
    blocks.d_sum = d_sum_of_block<R, Loss>;
  }
  return blocks;
}

}  // namespace PROSPECT_CPU_ISA
}  // namespace prospect::inline v2::cpu::detail
PROSPECT_STRICT_END
