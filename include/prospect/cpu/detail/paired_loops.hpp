// The loop over a piece of a batch of pairs: from rows to results. One for every loss, but for what
// a block of rows goes through.
#pragma once

#include <prospect/cpu/detail/sequence_sums.hpp>
#include <prospect/losses/parts/scores.hpp>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cpu::detail {

using prospect::detail::pair_indices;

inline namespace PROSPECT_CPU_ISA {

/// What a next-token term of a call adds to a pair: how much for each nat of which rows.
struct token_slope {
  double slope = 0;
  bool chosen = false;
  bool third = false;  ///< which is given

  bool any() const { return slope != 0 || third; }
};

/// That of a block, and where its third completions are.
template <std::floating_point R>
struct next_tokens_at {
  R slope;
  bool chosen;
  const R* third;  ///< null where none is given
  const std::int32_t* tokens;
  results_at<R> d_third;

  bool reads(std::int64_t i) const { return third != nullptr && slope != R(0) && tokens[i] > 0; }
  bool finite(std::int64_t i) const {
    return !reads(i) || (prospect::detail::is_finite(third[i]) && d_third.finite(i));
  }
};

/// Where a block of pairs is, and where its results go.
template <std::floating_point R>
struct pairs_at {
  completions_at<R> chosen, rejected;
  const R* weight;  ///< null where none is given
  const R* margin;  ///< likewise
  results_at<R> loss, d_chosen, d_rejected;
  R* reward_chosen;
  R* reward_rejected;
  next_tokens_at<R> next;

  bool counted(std::int64_t i) const { return chosen.tokens[i] > 0 && rejected.tokens[i] > 0; }
  bool finite(std::int64_t i) const {
    using prospect::detail::is_finite;
    return chosen.finite(i) && rejected.finite(i) && (weight == nullptr || is_finite(weight[i])) &&
           (margin == nullptr || is_finite(margin[i])) && loss.finite(i) && d_chosen.finite(i) &&
           d_rejected.finite(i) && next.finite(i);
  }
};

/// Adds the next-token term of several pairs from i on, and gives its coefficients of their third
/// completions.
template <std::floating_point R>
several<R> add_next_tokens(const next_tokens_at<R>& next, int i, flag_of<several<R>> counted,
                           const completions<R>& chosen, paired_value<several<R>>& v,
                           finite_probe<R>& probe) {
  const several<R> none = 0;
  const several<R> slope = next.slope;
  several<R> log_prob = none;
  several<R> d_third = none;
  if (next.slope == R(0)) return d_third;
  if (next.chosen) {
    log_prob = chosen.policy;
    v.d_chosen -= slope;
  }
  if (next.third != nullptr) {
    const auto there = counted && none < load_several<R>(next.tokens + i);
    const several<R> third = select(there, load_several(next.third + i), none);
    probe.look_at(third);
    log_prob += third;
    d_third = select(there, -slope, none);
  }
  v.loss -= slope * log_prob;
  return d_third;
}

/// What differentiates a block of pairs that have no weights, no margins and no next-token term,
/// and of such as may.
template <std::floating_point R>
struct pair_blocks {
  using block = bool (*)(const void* loss, const pairs_at<R>& rows, int n, times<R> factor,
                         times<R> reward, double scale, tally<paired_sum::size>& sums);
  block plain, with_options;
};

/// A block's results, added to `sums`, and whether all is finite. It is compiled for each loss; the
/// loop around it once, with that loss as a `const void*`. Whether rows have weights or margins is
/// asked before the loop: inside, results wait in memory for the answer where registers are few.
template <bool with_options, std::floating_point R, class Loss>
[[gnu::flatten]] bool differentiate_block(const void* of, const pairs_at<R>& block, int n,
                                          times<R> factor, times<R> reward, double scale,
                                          tally<paired_sum::size>& sums) {
  // Copies, which no result can overlap.
  const Loss loss = *static_cast<const Loss*>(of);
  const pairs_at<R> rows = block;
  using at = paired_sum;
  const several<R> none = 0;
  const several<R> one = 1;
  const several<R> sign = scale > 0 ? 1 : scale < 0 ? -1 : 0;
  running_tally<at::size> here{sums};
  several<R> accurate;
  finite_probe<R> probe;
  for (int i = 0; i < n; i += lanes<R>) {
    const auto counted = rows.chosen.counted(i) && rows.rejected.counted(i);
    const auto kept = [&](several<R> x) { return select(counted, x, none); };
    const completions<R> chosen = rows.chosen.several_of(i, counted);
    const completions<R> rejected = rows.rejected.several_of(i, counted);
    several<R> margin;
    if (with_options && rows.margin != nullptr) {
      margin = kept(load_several(rows.margin + i));
      probe.look_at(margin);
    }
    auto v = values_of<R>(loss, chosen, rejected, margin, counted);
    [[maybe_unused]] several<R> d_third;
    if constexpr (with_options && next_token_loss<Loss>) {
      d_third = add_next_tokens(rows.next, i, counted, chosen, v, probe);
    }
    if (with_options && rows.weight != nullptr) {
      const several<R> weight = load_several(rows.weight + i);
      v = {.loss = weighted(weight, v.loss),
           .d_chosen = weighted(weight, v.d_chosen),
           .d_rejected = weighted(weight, v.d_rejected)};
      if constexpr (next_token_loss<Loss>) d_third = weighted(weight, d_third);
    }
    if constexpr (with_options && next_token_loss<Loss>) {
      d_third = kept(factor(d_third));
      store_several(rows.next.d_third.row + i, d_third);
      probe.look_at(d_third);
    }
    const several<R> value = kept(v.loss);
    const several<R> d_chosen = kept(factor(v.d_chosen));
    const several<R> d_rejected = kept(factor(v.d_rejected));
    store_several(rows.loss.row + i, value);
    store_several(rows.d_chosen.row + i, d_chosen);
    store_several(rows.d_rejected.row + i, d_rejected);
    store_several(rows.reward_chosen + i, reward(chosen.ratio));
    store_several(rows.reward_rejected + i, reward(rejected.ratio));
    here.add(at::loss, i, value);
    here.add(at::chosen, i, chosen.ratio, scale);
    here.add(at::rejected, i, rejected.ratio, scale);
    here.add(at::logp_chosen, i, chosen.policy);
    here.add(at::logp_rejected, i, rejected.policy);
    accurate += select(sign * (chosen.ratio - rejected.ratio) > none, one, none);
    probe.look_at(value, d_chosen, d_rejected);
  }
  here.add(at::accurate, 0, accurate);
  here.store_to(sums);
  return here.finite() && probe.finite();
}

template <std::floating_point R>
tally<paired_sum::size> paired_results(const pair_blocks<R>& blocks, const void* loss, double scale,
                                       const paired_batch<>& in, const paired_outputs<>& out,
                                       const pair_indices& which, double factor,
                                       const token_slope& next, range piece) {
  const times<R> by_factor{factor};
  const times<R> by_scale{scale};
  completion_rows<R> chosen{in.policy_chosen, in.reference_chosen, in.chosen_tokens,
                            given(which.chosen)};
  completion_rows<R> rejected{in.policy_rejected, in.reference_rejected, in.rejected_tokens,
                              given(which.rejected)};
  row_reader<R> third{in.policy_third, given(which.third)};
  element_reader<std::int32_t> third_tokens{in.third_tokens, given(which.third)};
  row_reader<R> weight{in.weight};
  row_reader<R> margin{in.margin};
  row_writer<R> losses{out.loss};
  row_writer<R> d_chosen{out.d_policy_chosen};
  row_writer<R> d_rejected{out.d_policy_rejected};
  row_writer<R> reward_chosen{out.reward_chosen};
  row_writer<R> reward_rejected{out.reward_rejected};
  row_writer<R> to_chosen{which.d_policy, given(which.chosen)};
  row_writer<R> to_rejected{which.d_policy, given(which.rejected)};
  row_writer<R> d_third{out.d_policy_third};
  const any_row nowhere;
  row_writer<R> to_third{which.third.empty() ? nowhere : which.d_policy, given(which.third)};

  tally<paired_sum::size> seen;
  for_each_block(piece, [&](range at) {
    const auto of_d = [&](row_writer<R>& per_pair) {
      return results_at<R>{per_pair.begin(at), (std::min)(per_pair.limit(), to_chosen.limit())};
    };
    const next_tokens_at<R> next_tokens{
        .slope = static_cast<R>(next.slope),
        .chosen = next.chosen,
        .third = next.third ? third.read(at) : nullptr,
        .tokens = next.third ? third_tokens.read(at) : nullptr,
        .d_third = {d_third.begin(at), (std::min)(d_third.limit(), to_third.limit())}};
    const pairs_at<R> rows{.chosen = chosen.read(at),
                           .rejected = rejected.read(at),
                           .weight = weight.read(at),
                           .margin = margin.read(at),
                           .loss = {losses.begin(at), losses.limit()},
                           .d_chosen = of_d(d_chosen),
                           .d_rejected = of_d(d_rejected),
                           .reward_chosen = reward_chosen.begin(at),
                           .reward_rejected = reward_rejected.begin(at),
                           .next = next_tokens};
    const bool plain = rows.weight == nullptr && rows.margin == nullptr && !next.any();
    const auto differentiate = plain ? blocks.plain : blocks.with_options;
    bool finite = differentiate(loss, rows, whole_vectors(at), by_factor, by_scale, scale, seen);
    finite &= to_chosen.write_from(rows.d_chosen.row, at);
    finite &= to_rejected.write_from(rows.d_rejected.row, at);
    for (row_writer<R>* results : {&losses, &d_chosen, &d_rejected}) finite &= results->write(at);
    if (next.third) {
      finite &= to_third.write_from(next_tokens.d_third.row, at);
      finite &= d_third.write(at);
    }
    reward_chosen.write(at);
    reward_rejected.write(at);
    if (!finite) note_nonfinite(seen, at, rows);
  });
  return seen;
}

template <std::floating_point R, class Loss>
tally<paired_sum::size> paired_results_of(const Loss& loss, const paired_batch<>& in,
                                          const paired_outputs<>& out, const pair_indices& which,
                                          double factor, const token_slope& next, range piece) {
  return of_itself(loss, [&]<class One>(const One& one) {
    // Scores cost more than to ask for options: they are compiled once.
    constexpr bool always_asks = prospect::detail::is_scored<One>;
    return paired_results<R>({.plain = differentiate_block<always_asks, R, One>,
                              .with_options = differentiate_block<true, R, One>},
                             &one, reward_scale(one), in, out, which, factor, next, piece);
  });
}

}  // namespace PROSPECT_CPU_ISA
}  // namespace prospect::inline v2::cpu::detail
PROSPECT_STRICT_END
