// The loops of phase 2 over a piece of a batch: from rows to results, and what they add up to. One
// source for every instruction set; arguments and batches are the business of sequences.hpp.
#pragma once

#include <prospect/cpu/detail/samples.hpp>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v1::cpu::detail {

using prospect::detail::pair_indices;

/// The sums of a paired batch.
struct paired_sum {
  enum { loss, chosen, rejected, accurate, logp_chosen, logp_rejected, size };
};
/// The sums of an unpaired batch.
struct unpaired_sum {
  enum { desirable, loss, chosen, rejected, logp_chosen, logp_rejected, size };
};
/// Sums by class over the rows that take part in a class's mean, and their numbers.
struct class_sum {
  enum { n_desirable, n_undesirable, desirable, undesirable, size };
};

/// The sum of the mismatched log-ratios that are finite, and their number.
struct mismatched_sum {
  enum { ratio, finite, size };
};

/// What one class of an unpaired batch is measured against, and what every row of that class adds
/// to its own coefficient because another class's reference point depends on it.
struct class_terms {
  double z = 0;
  double attached = 0;
};

/// The loops for one paired loss and type of arithmetic. The archive fills the table with those of
/// the instruction set it finds, header-only users have those of the one they compile for.
template <std::floating_point R, class Loss>
struct paired_kernels {
  tally<paired_sum::size> (*results)(const Loss& loss, const paired_batch<>& in,
                                     const paired_outputs<>& out, const pair_indices& which,
                                     double factor, range piece);
};

/// The same for an unpaired loss.
template <std::floating_point R, class Loss>
struct unpaired_kernels {
  tally<unpaired_sum::size> (*results)(const Loss& loss, const unpaired_batch<>& in,
                                       const unpaired_outputs<>& out, double factor,
                                       const class_terms& desirable, const class_terms& undesirable,
                                       range piece);
  /// Log-ratios by class.
  tally<class_sum::size> (*ratios)(const unpaired_batch<>& in, range piece);
  /// dL/dz by class, times weights.
  tally<class_sum::size> (*slopes)(const Loss& loss, const unpaired_batch<>& in, double z_desirable,
                                   double z_undesirable, range piece);
};

inline namespace PROSPECT_CPU_ISA {

/// Where a block of results goes, and from which magnitude on they are infinite once they are
/// there.
template <std::floating_point R>
struct results_at {
  R* row;
  R limit;

  bool finite(std::int64_t i) const {
    using prospect::detail::magnitude_bits;
    return magnitude_bits(row[i]) < magnitude_bits(limit);
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

  bool counted(std::int64_t i) const { return chosen.tokens[i] > 0 && rejected.tokens[i] > 0; }
  bool finite(std::int64_t i) const {
    using prospect::detail::is_finite;
    return chosen.finite(i) && rejected.finite(i) && (weight == nullptr || is_finite(weight[i])) &&
           (margin == nullptr || is_finite(margin[i])) && loss.finite(i) && d_chosen.finite(i) &&
           d_rejected.finite(i);
  }
};

/// The same for completions.
template <std::floating_point R>
struct answers_at {
  completions_at<R> answer;
  const std::uint8_t* desirable;
  const R* weight;
  results_at<R> loss, d_policy;
  R* reward;

  bool counted(std::int64_t i) const { return answer.tokens[i] > 0; }
  bool finite(std::int64_t i) const {
    return answer.finite(i) && (weight == nullptr || prospect::detail::is_finite(weight[i])) &&
           loss.finite(i) && d_policy.finite(i);
  }
};

/// Notes the counted rows that hold what is no finite number.
template <int N, class Block>
void note_nonfinite(tally<N>& piece, range at, const Block& block) {
  for (std::int64_t i = 0; i < at.count; ++i) {
    if (!block.counted(i) || block.finite(i)) continue;
    ++piece.nonfinite;
    if (piece.first_nonfinite < 0) piece.first_nonfinite = at.first + i;
  }
}

/// A block's results, added to `sums`, and whether all is finite.
template <std::floating_point R, class Loss>
[[gnu::flatten]] bool differentiate_block(Loss loss, pairs_at<R> rows, int n, times<R> factor,
                                          times<R> reward, double scale,
                                          tally<paired_sum::size>& sums) {
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
    if (rows.margin != nullptr) {
      margin = kept(load_several(rows.margin + i));
      probe.look_at(margin);
    }
    auto v = values_of<R>(loss, chosen, rejected, margin, counted);
    if (rows.weight != nullptr) {
      const several<R> weight = load_several(rows.weight + i);
      v = {.loss = weighted(weight, v.loss),
           .d_chosen = weighted(weight, v.d_chosen),
           .d_rejected = weighted(weight, v.d_rejected)};
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

template <std::floating_point R, class Loss>
tally<paired_sum::size> paired_results(const Loss& loss, const paired_batch<>& in,
                                       const paired_outputs<>& out, const pair_indices& which,
                                       double factor, range piece) {
  const double scale = reward_scale(loss);
  const times<R> by_factor{factor};
  const times<R> by_scale{scale};
  completion_rows<R> chosen{in.policy_chosen, in.reference_chosen, in.chosen_tokens,
                            given(which.chosen)};
  completion_rows<R> rejected{in.policy_rejected, in.reference_rejected, in.rejected_tokens,
                              given(which.rejected)};
  row_reader<R> weight{in.weight};
  row_reader<R> margin{in.margin};
  row_writer<R> losses{out.loss};
  row_writer<R> d_chosen{out.d_policy_chosen};
  row_writer<R> d_rejected{out.d_policy_rejected};
  row_writer<R> reward_chosen{out.reward_chosen};
  row_writer<R> reward_rejected{out.reward_rejected};
  row_writer<R> to_chosen{which.d_policy, given(which.chosen)};
  row_writer<R> to_rejected{which.d_policy, given(which.rejected)};

  tally<paired_sum::size> seen;
  for_each_block(piece, [&](range at) {
    const auto of_d = [&](row_writer<R>& per_pair) {
      return results_at<R>{per_pair.begin(at), (std::min)(per_pair.limit(), to_chosen.limit())};
    };
    const pairs_at<R> rows{.chosen = chosen.read(at),
                           .rejected = rejected.read(at),
                           .weight = weight.read(at),
                           .margin = margin.read(at),
                           .loss = {losses.begin(at), losses.limit()},
                           .d_chosen = of_d(d_chosen),
                           .d_rejected = of_d(d_rejected),
                           .reward_chosen = reward_chosen.begin(at),
                           .reward_rejected = reward_rejected.begin(at)};
    bool finite =
        differentiate_block<R>(loss, rows, whole_vectors(at), by_factor, by_scale, scale, seen);
    finite &= to_chosen.write_from(rows.d_chosen.row, at);
    finite &= to_rejected.write_from(rows.d_rejected.row, at);
    for (row_writer<R>* results : {&losses, &d_chosen, &d_rejected}) finite &= results->write(at);
    reward_chosen.write(at);
    reward_rejected.write(at);
    if (!finite) note_nonfinite(seen, at, rows);
  });
  return seen;
}

/// The same for completions. Whether they have weights is asked before the loop: inside, results
/// wait in memory for the answer where registers are few.
template <bool with_weights, std::floating_point R, class Loss>
[[gnu::flatten]] bool differentiate_block(Loss loss, answers_at<R> rows, int n, times<R> factor,
                                          times<R> reward, double scale, class_terms desirable,
                                          class_terms undesirable,
                                          tally<unpaired_sum::size>& sums) {
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
    auto v = values_of<R>(loss, answer, by_class(desirable.z, undesirable.z), up, counted);
    if constexpr (with_weights) {
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

template <std::floating_point R, class Loss>
tally<unpaired_sum::size> unpaired_results(const Loss& loss, const unpaired_batch<>& in,
                                           const unpaired_outputs<>& out, double factor,
                                           const class_terms& desirable,
                                           const class_terms& undesirable, range piece) {
  const double scale = reward_scale(loss);
  const times<R> by_factor{factor};
  const times<R> by_scale{scale};
  completion_rows<R> answer{in.policy, in.reference, in.tokens};
  element_reader<std::uint8_t> thumbs{in.desirable};
  row_reader<R> weight{in.weight};
  row_writer<R> losses{out.loss};
  row_writer<R> d_policy{out.d_policy};
  row_writer<R> reward{out.reward};

  tally<unpaired_sum::size> seen;
  for_each_block(piece, [&](range at) {
    const answers_at<R> rows{.answer = answer.read(at),
                             .desirable = thumbs.read(at),
                             .weight = weight.read(at),
                             .loss = {losses.begin(at), losses.limit()},
                             .d_policy = {d_policy.begin(at), d_policy.limit()},
                             .reward = reward.begin(at)};
    const auto differentiate = rows.weight == nullptr ? differentiate_block<false, R, Loss>
                                                      : differentiate_block<true, R, Loss>;
    bool finite = differentiate(loss, rows, whole_vectors(at), by_factor, by_scale, scale,
                                desirable, undesirable, seen);
    finite &= losses.write(at);
    finite &= d_policy.write(at);
    reward.write(at);
    if (!finite) note_nonfinite(seen, at, rows);
  });
  return seen;
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
[[gnu::flatten]] tally<class_sum::size> class_slopes(const Loss& loss, const unpaired_batch<>& in,
                                                     double z_desirable, double z_undesirable,
                                                     range piece) {
  row_reader<R> weights{in.weight};
  return by_class<R, false>(in, piece, [&](range at) {
    return [&, weight = weights.read(at)](int i, const auto& c, auto counted, auto up) {
      const several<R> z = select(up, several<R>(z_desirable), several<R>(z_undesirable));
      const several<R> slope = values_of<R>(loss, c, z, up, counted).d_z;
      return weight == nullptr ? slope : weighted(load_several(weight + i), slope);
    };
  });
}

/// Mismatched rows, for `note_nonfinite`.
template <std::floating_point R>
struct mismatched_at {
  completions_at<R> rows;

  bool counted(std::int64_t i) const { return rows.tokens[i] > 0; }
  bool finite(std::int64_t i) const { return rows.finite(i); }
};

template <std::floating_point R>
[[gnu::flatten]] tally<mismatched_sum::size> mismatched_ratios(
    const const_any_row& policy, const const_any_row& reference,
    strided_span<const std::int32_t> tokens, range piece) {
  const several<R> none = 0;
  const several<R> one = 1;
  completion_rows<R> answer{policy, reference, tokens};
  tally<mismatched_sum::size> seen;
  for_each_block(piece, [&](range at) {
    const completions_at<R> rows = answer.read(at);
    running_tally<mismatched_sum::size> here{seen};
    several<R> left_out;
    const int n = whole_vectors(at);
    for (int i = 0; i < n; i += lanes<R>) {
      const auto counted = rows.counted(i);
      const several<R> ratio = rows.several_of(i, counted).ratio;
      const auto finite = is_finite(ratio);
      here.add(mismatched_sum::ratio, i, select(finite, ratio, none));
      here.add(mismatched_sum::finite, i, select(counted && finite, one, none));
      left_out += select(finite, none, one);
    }
    here.store_to(seen);
    if (fold<R>(left_out.lane, [](auto a, auto b) { return a + b; }) > 0) {
      note_nonfinite(seen, at, mismatched_at<R>{rows});
    }
  });
  return seen;
}

/// Those of the instruction set this is compiled for.
template <std::floating_point R, class Loss>
constexpr paired_kernels<R, Loss> compiled_paired_kernels() noexcept {
  return {.results = paired_results<R, Loss>};
}
template <std::floating_point R, class Loss>
constexpr unpaired_kernels<R, Loss> compiled_unpaired_kernels() noexcept {
  return {.results = unpaired_results<R, Loss>,
          .ratios = class_ratios<R>,
          .slopes = class_slopes<R, Loss>};
}

}  // namespace PROSPECT_CPU_ISA
}  // namespace prospect::inline v1::cpu::detail
PROSPECT_STRICT_END
