// The loops of phase 2 over a piece of a batch: from rows to results, and what they add up to. One
// source for every instruction set; arguments and batches are the business of sequences.hpp.
#pragma once

#include <prospect/cpu/detail/samples.hpp>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v1::cpu::detail {

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

/// What one class of an unpaired batch is measured against, and what every row of that class adds
/// to its own coefficient because another class's reference point depends on it.
struct class_terms {
  double z = 0;
  double attached = 0;
};

/// The loops for one paired loss and storage type. The archive fills the table with those of the
/// instruction set it finds, header-only users have those of the one they compile for.
template <storage S, class Loss>
struct paired_kernels {
  tally<paired_sum::size> (*results)(const Loss& loss, const paired_batch<S>& in,
                                     const paired_outputs<S>& out, double factor, range piece);
};

/// The same for an unpaired loss.
template <storage S, class Loss>
struct unpaired_kernels {
  tally<unpaired_sum::size> (*results)(const Loss& loss, const unpaired_batch<S>& in,
                                       const unpaired_outputs<S>& out, double factor,
                                       const class_terms& desirable, const class_terms& undesirable,
                                       range piece);
  /// Log-ratios by class.
  tally<class_sum::size> (*ratios)(const unpaired_batch<S>& in, range piece);
  /// dL/dz by class.
  tally<class_sum::size> (*slopes)(const Loss& loss, const unpaired_batch<S>& in,
                                   double z_desirable, double z_undesirable, range piece);
};

inline namespace PROSPECT_CPU_ISA {

/// Where a block of pairs is, and where its results go.
template <std::floating_point R>
struct pairs_at {
  completions_at<R> chosen, rejected;
  R* loss;
  R* d_chosen;
  R* d_rejected;
  R* reward_chosen;
  R* reward_rejected;

  bool counted(std::int64_t i) const { return chosen.tokens[i] > 0 && rejected.tokens[i] > 0; }
  bool finite(std::int64_t i) const {
    return chosen.finite(i) && rejected.finite(i) && R(0) * loss[i] == R(0) &&
           R(0) * d_chosen[i] == R(0) && R(0) * d_rejected[i] == R(0);
  }
};

/// The same for completions.
template <std::floating_point R>
struct answers_at {
  completions_at<R> answer;
  const std::uint8_t* desirable;
  R* loss;
  R* d_policy;
  R* reward;

  bool counted(std::int64_t i) const { return answer.tokens[i] > 0; }
  bool finite(std::int64_t i) const {
    return answer.finite(i) && R(0) * loss[i] == R(0) && R(0) * d_policy[i] == R(0);
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
template <storage S, class Loss>
[[gnu::flatten]] bool differentiate_block(Loss loss, pairs_at<compute_t<S>> rows, int n,
                                          times<compute_t<S>> factor, times<compute_t<S>> reward,
                                          double scale, tally<paired_sum::size>& sums) {
  using at = paired_sum;
  using R = compute_t<S>;
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
    const auto v = values_of<R>(loss, chosen, rejected, counted);
    const several<R> value = kept(v.loss);
    const several<R> shown = as_stored<S>(value);
    const several<R> d_chosen = as_stored<S>(kept(factor(v.d_chosen)));
    const several<R> d_rejected = as_stored<S>(kept(factor(v.d_rejected)));
    store_several(rows.loss + i, shown);
    store_several(rows.d_chosen + i, d_chosen);
    store_several(rows.d_rejected + i, d_rejected);
    store_several(rows.reward_chosen + i, reward(chosen.ratio));
    store_several(rows.reward_rejected + i, reward(rejected.ratio));
    here.add(at::loss, i, value);
    here.add(at::chosen, i, chosen.ratio, scale);
    here.add(at::rejected, i, rejected.ratio, scale);
    here.add(at::logp_chosen, i, chosen.policy);
    here.add(at::logp_rejected, i, rejected.policy);
    accurate += select(sign * (chosen.ratio - rejected.ratio) > none, one, none);
    probe.look_at(shown, d_chosen, d_rejected);
  }
  here.add(at::accurate, 0, accurate);
  here.store_to(sums);
  return here.finite() && probe.finite();
}

template <storage S, class Loss>
tally<paired_sum::size> paired_results(const Loss& loss, const paired_batch<S>& in,
                                       const paired_outputs<S>& out, double factor, range piece) {
  using R = compute_t<S>;
  const double scale = reward_scale(loss);
  const times<R> by_factor{factor};
  const times<R> by_scale{scale};
  completion_rows<S> chosen{in.policy_chosen, in.reference_chosen, in.chosen_tokens};
  completion_rows<S> rejected{in.policy_rejected, in.reference_rejected, in.rejected_tokens};
  row_writer<S> losses{out.loss};
  row_writer<S> d_chosen{out.d_policy_chosen};
  row_writer<S> d_rejected{out.d_policy_rejected};
  row_writer<S> reward_chosen{out.reward_chosen};
  row_writer<S> reward_rejected{out.reward_rejected};

  tally<paired_sum::size> seen;
  for_each_block(piece, [&](range at) {
    const pairs_at<R> rows{.chosen = chosen.read(at),
                           .rejected = rejected.read(at),
                           .loss = losses.begin(at),
                           .d_chosen = d_chosen.begin(at),
                           .d_rejected = d_rejected.begin(at),
                           .reward_chosen = reward_chosen.begin(at),
                           .reward_rejected = reward_rejected.begin(at)};
    if (!differentiate_block<S>(loss, rows, whole_vectors(at), by_factor, by_scale, scale, seen)) {
      note_nonfinite(seen, at, rows);
    }
    losses.write(at);
    d_chosen.write(at);
    d_rejected.write(at);
    reward_chosen.write(at);
    reward_rejected.write(at);
  });
  return seen;
}

template <storage S, class Loss>
[[gnu::flatten]] bool differentiate_block(Loss loss, answers_at<compute_t<S>> rows, int n,
                                          times<compute_t<S>> factor, times<compute_t<S>> reward,
                                          double scale, class_terms desirable,
                                          class_terms undesirable,
                                          tally<unpaired_sum::size>& sums) {
  using at = unpaired_sum;
  using R = compute_t<S>;
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
    const auto v = values_of<R>(loss, answer, by_class(desirable.z, undesirable.z), up, counted);
    const several<R> value = kept(v.loss);
    const several<R> shown = as_stored<S>(value);
    const several<R> d_policy =
        as_stored<S>(kept(factor(v.d_policy + by_class(desirable.attached, undesirable.attached))));
    store_several(rows.loss + i, shown);
    store_several(rows.d_policy + i, d_policy);
    store_several(rows.reward + i, reward(answer.ratio));
    here.add(at::loss, i, value);
    here.add(at::chosen, i, if_up(answer.ratio), scale);
    here.add(at::rejected, i, if_down(answer.ratio), scale);
    here.add(at::logp_chosen, i, if_up(answer.policy));
    here.add(at::logp_rejected, i, if_down(answer.policy));
    up_counted += if_up(kept(one));
    probe.look_at(shown, d_policy);
  }
  here.add(at::desirable, 0, up_counted);
  here.store_to(sums);
  return here.finite() && probe.finite();
}

template <storage S, class Loss>
tally<unpaired_sum::size> unpaired_results(const Loss& loss, const unpaired_batch<S>& in,
                                           const unpaired_outputs<S>& out, double factor,
                                           const class_terms& desirable,
                                           const class_terms& undesirable, range piece) {
  using R = compute_t<S>;
  const double scale = reward_scale(loss);
  const times<R> by_factor{factor};
  const times<R> by_scale{scale};
  completion_rows<S> answer{in.policy, in.reference, in.tokens};
  row_reader<std::uint8_t> thumbs{in.desirable};
  row_writer<S> losses{out.loss};
  row_writer<S> d_policy{out.d_policy};
  row_writer<S> reward{out.reward};

  tally<unpaired_sum::size> seen;
  for_each_block(piece, [&](range at) {
    const answers_at<R> rows{.answer = answer.read(at),
                             .desirable = thumbs.read(at),
                             .loss = losses.begin(at),
                             .d_policy = d_policy.begin(at),
                             .reward = reward.begin(at)};
    if (!differentiate_block<S>(loss, rows, whole_vectors(at), by_factor, by_scale, scale,
                                desirable, undesirable, seen)) {
      note_nonfinite(seen, at, rows);
    }
    losses.write(at);
    d_policy.write(at);
    reward.write(at);
  });
  return seen;
}

/// Adds x by class. A row that is not finite is left out, so that it spoils its own results, which
/// are reported, and not those of the other class.
template <std::floating_point R>
PROSPECT_INLINE void add_by_class(running_tally<class_sum::size>& sums, int i,
                                  const completions<R>& c, flag_of<several<R>> counted,
                                  flag_of<several<R>> up, several<R> x) {
  const several<R> none = 0;
  const auto finite = [&](several<R> y) { return y - y == none; };
  const auto taken = counted && finite(c.policy) && finite(c.ratio);
  const several<R> n = select(taken, several<R>(1), none);
  const several<R> term = select(taken, x, none);
  sums.add(class_sum::n_desirable, i, select(up, n, none));
  sums.add(class_sum::n_undesirable, i, select(up, none, n));
  sums.add(class_sum::desirable, i, select(up, term, none));
  sums.add(class_sum::undesirable, i, select(up, none, term));
}

/// Sums over a piece, by class, of what `term` makes of several completions: term(completions,
/// counted, up).
template <storage S, class Term>
tally<class_sum::size> by_class(const unpaired_batch<S>& in, range piece, const Term& term) {
  using R = compute_t<S>;
  completion_rows<S> answer{in.policy, in.reference, in.tokens};
  row_reader<std::uint8_t> thumbs{in.desirable};
  tally<class_sum::size> seen;
  for_each_block(piece, [&](range at) {
    const completions_at<R> rows = answer.read(at);
    const std::uint8_t* const desirable = thumbs.read(at);
    running_tally<class_sum::size> here{seen};
    const int n = whole_vectors(at);
    for (int i = 0; i < n; i += lanes<R>) {
      const auto counted = rows.counted(i);
      const auto up = several<R>(0) < load_several<R>(desirable + i);
      const completions<R> c = rows.several_of(i, counted);
      add_by_class(here, i, c, counted, up, term(c, counted, up));
    }
    here.store_to(seen);
  });
  return seen;
}

template <storage S>
[[gnu::flatten]] tally<class_sum::size> class_ratios(const unpaired_batch<S>& in, range piece) {
  return by_class<S>(in, piece, [](const auto& c, auto, auto) { return c.ratio; });
}

template <storage S, class Loss>
[[gnu::flatten]] tally<class_sum::size> class_slopes(const Loss& loss, const unpaired_batch<S>& in,
                                                     double z_desirable, double z_undesirable,
                                                     range piece) {
  using R = compute_t<S>;
  return by_class<S>(in, piece, [&](const auto& c, auto counted, auto up) {
    const several<R> z = select(up, several<R>(z_desirable), several<R>(z_undesirable));
    return values_of<R>(loss, c, z, up, counted).d_z;
  });
}

template <storage S>
tally<1> mismatched_ratios(strided_span<const S> policy, strided_span<const S> reference,
                           strided_span<const std::int32_t> tokens, range piece) {
  using R = compute_t<S>;
  completion_rows<S> answer{policy, reference, tokens};
  tally<1> seen;
  for_each_block(piece, [&](range at) {
    const completions_at<R> rows = answer.read(at);
    running_tally<1> here{seen};
    const int n = whole_vectors(at);
    for (int i = 0; i < n; i += lanes<R>) {
      here.add(0, i, rows.several_of(i, rows.counted(i)).ratio);
    }
    here.store_to(seen);
  });
  return seen;
}

/// Those of the instruction set this is compiled for.
template <storage S, class Loss>
constexpr paired_kernels<S, Loss> compiled_paired_kernels() noexcept {
  return {.results = paired_results<S, Loss>};
}
template <storage S, class Loss>
constexpr unpaired_kernels<S, Loss> compiled_unpaired_kernels() noexcept {
  return {.results = unpaired_results<S, Loss>,
          .ratios = class_ratios<S>,
          .slopes = class_slopes<S, Loss>};
}

}  // namespace PROSPECT_CPU_ISA
}  // namespace prospect::inline v1::cpu::detail
PROSPECT_STRICT_END
