// The loops over a piece of a batch of completions: from rows to results, once for every loss but
// for what a block of rows goes through, and what their classes add up to.
#pragma once

#include <prospect/cpu/detail/sequence_sums.hpp>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cpu::detail {
inline namespace PROSPECT_CPU_ISA {

/// Where a block of completions is, and where its results go.
template <std::floating_point R>
struct answers_at {
  completions_at<R> answer;
  const std::uint8_t* desirable;
  const R* weight;  ///< null where none is given
  const R* target;  ///< likewise
  results_at<R> loss, d_policy;
  R* reward;

  bool counted(std::int64_t i) const { return answer.tokens[i] > 0; }
  bool finite(std::int64_t i) const {
    using prospect::detail::is_finite;
    return answer.finite(i) && (weight == nullptr || is_finite(weight[i])) &&
           (target == nullptr || is_finite(target[i])) && loss.finite(i) && d_policy.finite(i);
  }
};

/// What differentiates a block of completions that have no weights and no targets, and of such as
/// may.
template <std::floating_point R>
struct answer_blocks {
  using block = bool (*)(const void* loss, const answers_at<R>& rows, int n, times<R> factor,
                         times<R> reward, double scale, class_terms desirable,
                         class_terms undesirable, tally<unpaired_sum::size>& sums);
  block plain, with_options;
};

/// A block's results, added to `sums`, and whether all is finite: as for pairs, compiled for each
/// loss, and with the rows that may be missing asked for before the loop.
template <bool with_options, std::floating_point R, class Loss>
[[gnu::flatten]] bool differentiate_block(const void* of, const answers_at<R>& block, int n,
                                          times<R> factor, times<R> reward, double scale,
                                          class_terms desirable, class_terms undesirable,
                                          tally<unpaired_sum::size>& sums) {
  // Copies, which no result can overlap.
  const Loss loss = *static_cast<const Loss*>(of);
  const answers_at<R> rows = block;
  using at = unpaired_sum;
  const several<R> none = 0;
  const several<R> one = 1;
  running_tally<at::size> here{sums};
  several<R> up_counted;
  finite_probe<R> probe;
  for (int i = 0; i < n; i += lanes<R>) {
    const auto counted = rows.answer.counted(i);
    const auto up = none < load_several<R>(rows.desirable + i);
    const auto kept = [&](several<R> x) { return select(counted, x, none); };
    const auto if_up = [&](several<R> x) { return select(up, x, none); };
    const auto if_down = [&](several<R> x) { return select(up, none, x); };
    const auto by_class = [&](double of_desirable, double of_undesirable) {
      return select(up, several<R>(of_desirable), several<R>(of_undesirable));
    };
    const completions<R> answer = rows.answer.several_of(i, counted);
    several<R> target;
    if (with_options && rows.target != nullptr) {
      target = kept(load_several(rows.target + i));
      probe.look_at(target);
    }
    auto v = values_of<R>(loss, answer, by_class(desirable.z, undesirable.z), up, target, counted);
    if (with_options && rows.weight != nullptr) {
      const several<R> weight = load_several(rows.weight + i);
      v.loss = weighted(weight, v.loss);
      v.d_policy = weighted(weight, v.d_policy);
    }
    const several<R> value = kept(v.loss);
    const several<R> d_policy =
        kept(factor(v.d_policy + by_class(desirable.attached, undesirable.attached)));
    store_several(rows.loss.row + i, value);
    store_several(rows.d_policy.row + i, d_policy);
    store_several(rows.reward + i, reward(answer.ratio));
    here.add(at::loss, i, value);
    here.add(at::chosen, i, if_up(answer.ratio), scale);
    here.add(at::rejected, i, if_down(answer.ratio), scale);
    here.add(at::logp_chosen, i, if_up(answer.policy));
    here.add(at::logp_rejected, i, if_down(answer.policy));
    up_counted += if_up(kept(one));
    probe.look_at(value, d_policy);
  }
  here.add(at::desirable, 0, up_counted);
  here.store_to(sums);
  return here.finite() && probe.finite();
}

template <std::floating_point R>
tally<unpaired_sum::size> unpaired_results(const answer_blocks<R>& blocks, const void* loss,
                                           double scale, const unpaired_batch<>& in,
                                           const unpaired_outputs<>& out, double factor,
                                           const class_terms& desirable,
                                           const class_terms& undesirable, range piece) {
  const times<R> by_factor{factor};
  const times<R> by_scale{scale};
  completion_rows<R> answer{in.policy, in.reference, in.tokens};
  element_reader<std::uint8_t> thumbs{in.desirable};
  row_reader<R> weight{in.weight};
  row_reader<R> target{in.target};
  row_writer<R> losses{out.loss};
  row_writer<R> d_policy{out.d_policy};
  row_writer<R> reward{out.reward};

  tally<unpaired_sum::size> seen;
  for_each_block(piece, [&](range at) {
    const answers_at<R> rows{.answer = answer.read(at),
                             .desirable = thumbs.read(at),
                             .weight = weight.read(at),
                             .target = target.read(at),
                             .loss = {losses.begin(at), losses.limit()},
                             .d_policy = {d_policy.begin(at), d_policy.limit()},
                             .reward = reward.begin(at)};
    const bool plain = rows.weight == nullptr && rows.target == nullptr;
    const auto differentiate = plain ? blocks.plain : blocks.with_options;
    bool finite = differentiate(loss, rows, whole_vectors(at), by_factor, by_scale, scale,
                                desirable, undesirable, seen);
    finite &= losses.write(at);
    finite &= d_policy.write(at);
    reward.write(at);
    if (!finite) note_nonfinite(seen, at, rows);
  });
  return seen;
}

template <std::floating_point R, class Loss>
tally<unpaired_sum::size> unpaired_results_of(const Loss& loss, const unpaired_batch<>& in,
                                              const unpaired_outputs<>& out, double factor,
                                              const class_terms& desirable,
                                              const class_terms& undesirable, range piece) {
  return of_itself(loss, [&]<class One>(const One& one) {
    return unpaired_results<R>({.plain = differentiate_block<false, R, One>,
                                .with_options = differentiate_block<true, R, One>},
                               &one, reward_scale(one), in, out, factor, desirable, undesirable,
                               piece);
  });
}

/// Adds x by class, and the numbers of rows where they are wanted. A row that is not finite is left
/// out, so that it spoils its own results, which are reported, and not those of the other class.
template <bool counting, std::floating_point R>
PROSPECT_INLINE void add_by_class(running_tally<class_sum::size>& sums, int i,
                                  const completions<R>& c, flag_of<several<R>> counted,
                                  flag_of<several<R>> up, several<R> x) {
  const several<R> none = 0;
  const auto taken = counted && is_finite(c.policy) && is_finite(c.ratio) && is_finite(x);
  if constexpr (counting) {
    const several<R> n = select(taken, several<R>(1), none);
    sums.add(class_sum::n_desirable, i, select(up, n, none));
    sums.add(class_sum::n_undesirable, i, select(up, none, n));
  }
  const several<R> term = select(taken, x, none);
  sums.add(class_sum::desirable, i, select(up, term, none));
  sums.add(class_sum::undesirable, i, select(up, none, term));
}

/// Sums over a piece, by class, of what `term(block)` makes of several completions from the i-th of
/// the block on, given (i, completions, counted, up).
template <std::floating_point R, bool counting, class Term>
tally<class_sum::size> by_class(const unpaired_batch<>& in, range piece, const Term& term) {
  completion_rows<R> answer{in.policy, in.reference, in.tokens};
  element_reader<std::uint8_t> thumbs{in.desirable};
  tally<class_sum::size> seen;
  for_each_block(piece, [&](range at) {
    const completions_at<R> rows = answer.read(at);
    const std::uint8_t* const desirable = thumbs.read(at);
    running_tally<class_sum::size> here{seen};
    const int n = whole_vectors(at);
    const auto term_at = term(at);
    for (int i = 0; i < n; i += lanes<R>) {
      const auto counted = rows.counted(i);
      const auto up = several<R>(0) < load_several<R>(desirable + i);
      const completions<R> c = rows.several_of(i, counted);
      add_by_class<counting>(here, i, c, counted, up, term_at(i, c, counted, up));
    }
    here.store_to(seen);
  });
  return seen;
}

template <std::floating_point R>
[[gnu::flatten]] tally<class_sum::size> class_ratios(const unpaired_batch<>& in, range piece) {
  return by_class<R, true>(
      in, piece, [](range) { return [](int, const auto& c, auto, auto) { return c.ratio; }; });
}

template <std::floating_point R, class Loss>
[[gnu::flatten]] tally<class_sum::size> class_slopes_with(const Loss& loss,
                                                          const unpaired_batch<>& in,
                                                          double z_desirable, double z_undesirable,
                                                          range piece) {
  row_reader<R> weights{in.weight};
  row_reader<R> targets{in.target};
  return by_class<R, false>(in, piece, [&](range at) {
    return [&, weight = weights.read(at), aim = targets.read(at)](int i, const auto& c,
                                                                  auto counted, auto up) {
      const several<R> z = select(up, several<R>(z_desirable), several<R>(z_undesirable));
      several<R> target;
      if (aim != nullptr) target = select(counted, load_several(aim + i), several<R>(0));
      const several<R> slope = values_of<R>(loss, c, z, up, target, counted).d_z;
      return weight == nullptr ? slope : weighted(load_several(weight + i), slope);
    };
  });
}

template <std::floating_point R, class Loss>
tally<class_sum::size> class_slopes(const Loss& loss, const unpaired_batch<>& in,
                                    double z_desirable, double z_undesirable, range piece) {
  return of_itself(loss, [&](const auto& one) {
    return class_slopes_with<R>(one, in, z_desirable, z_undesirable, piece);
  });
}

}  // namespace PROSPECT_CPU_ISA
}  // namespace prospect::inline v2::cpu::detail
PROSPECT_STRICT_END
