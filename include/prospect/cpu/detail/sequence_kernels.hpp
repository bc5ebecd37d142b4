// The loops of phase 2 over a piece of a batch: from rows to results, and what they add up to. One
// source for every instruction set; arguments and batches are the business of sequences.hpp.
#pragma once

#include <prospect/cpu/detail/samples.hpp>

namespace prospect::inline v0::cpu::detail {

/// The sums of a paired batch.
struct paired_sum {
  enum { loss, chosen, rejected, margin, accurate, logp_chosen, logp_rejected, size };
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

/// The block's results, from values and derivatives to what is handed out, added to `sums`.
template <class R>
void finish(paired_block<R>& b, double factor, double scale, tally<paired_sum::size>& sums) {
  using at = paired_sum;
  block_tally<at::size> here;
  const several<double> none = 0;
  const several<double> one = 1;
  for (int i = 0; i < block_size; i += lanes<double>) {
    const several<double> counted = load_wide(b.counted, i);
    const auto add = [&](int which, several<double> x) { here.add(which, i, x); };
    const auto kept = [&](several<double> x) { return select(none < counted, x, none); };
    const several<double> loss = kept(load_wide(b.loss, i));
    const several<double> chosen = kept(scale * load_wide(b.chosen.ratio, i));
    const several<double> rejected = kept(scale * load_wide(b.rejected.ratio, i));
    add(at::loss, loss);
    add(at::chosen, chosen);
    add(at::rejected, rejected);
    add(at::margin, chosen - rejected);
    add(at::accurate, select(chosen > rejected, one, none));
    add(at::logp_chosen, load_wide(b.chosen.policy, i));
    add(at::logp_rejected, load_wide(b.rejected.policy, i));
    store_wide(b.loss, i, loss);
    store_wide(b.d_chosen, i, kept(factor * load_wide(b.d_chosen, i)));
    store_wide(b.d_rejected, i, kept(factor * load_wide(b.d_rejected, i)));
    store_wide(b.reward_chosen, i, chosen);
    store_wide(b.reward_rejected, i, rejected);
  }
  here.add_to(sums);
}

template <storage S, class Loss>
tally<paired_sum::size> paired_results(const Loss& loss, const paired_batch<S>& in,
                                       const paired_outputs<S>& out, double factor, range piece) {
  const double scale = reward_scale(loss);
  tally<paired_sum::size> seen;
  paired_block<compute_t<S>> b;
  for_each_block(piece, [&](range at) {
    b.read(in, at);
    b.differentiate(loss);
    finish(b, factor, scale, seen);
    note_nonfinite(seen, at, b.counted,
                   {&b.chosen.policy, &b.chosen.ratio, &b.rejected.policy, &b.rejected.ratio,
                    &rounded<S>(b.loss), &rounded<S>(b.d_chosen), &rounded<S>(b.d_rejected)});
    write(b.loss, at, out.loss);
    write(b.d_chosen, at, out.d_policy_chosen);
    write(b.d_rejected, at, out.d_policy_rejected);
    write(b.reward_chosen, at, out.reward_chosen);
    write(b.reward_rejected, at, out.reward_rejected);
  });
  return seen;
}

template <class R>
void finish(unpaired_block<R>& b, double factor, double scale, const class_terms& desirable,
            const class_terms& undesirable, tally<unpaired_sum::size>& sums) {
  using at = unpaired_sum;
  block_tally<at::size> here;
  const several<double> none = 0;
  const several<double> one = 1;
  for (int i = 0; i < block_size; i += lanes<double>) {
    const auto counted = none < load_wide(b.counted, i);
    const auto up = none < load_wide(b.desirable, i);
    const auto add = [&](int which, several<double> x) { here.add(which, i, x); };
    const auto kept = [&](several<double> x) { return select(counted, x, none); };
    const auto if_up = [&](several<double> x) { return select(up, x, none); };
    const auto if_down = [&](several<double> x) { return select(up, none, x); };
    const several<double> loss = kept(load_wide(b.loss, i));
    const several<double> reward = kept(scale * load_wide(b.answer.ratio, i));
    const several<double> policy = load_wide(b.answer.policy, i);
    add(at::desirable, if_up(kept(one)));
    add(at::loss, loss);
    add(at::chosen, if_up(reward));
    add(at::rejected, if_down(reward));
    add(at::logp_chosen, if_up(policy));
    add(at::logp_rejected, if_down(policy));
    const several<double> attached =
        select(up, several<double>(desirable.attached), several<double>(undesirable.attached));
    store_wide(b.loss, i, loss);
    store_wide(b.d_policy, i, kept(factor * (load_wide(b.d_policy, i) + attached)));
    store_wide(b.reward, i, reward);
  }
  here.add_to(sums);
}

template <storage S, class Loss>
tally<unpaired_sum::size> unpaired_results(const Loss& loss, const unpaired_batch<S>& in,
                                           const unpaired_outputs<S>& out, double factor,
                                           const class_terms& desirable,
                                           const class_terms& undesirable, range piece) {
  const double scale = reward_scale(loss);
  tally<unpaired_sum::size> seen;
  unpaired_block<compute_t<S>> b;
  for_each_block(piece, [&](range at) {
    b.read(in, at);
    b.differentiate(loss, desirable.z, undesirable.z);
    finish(b, factor, scale, desirable, undesirable, seen);
    note_nonfinite(
        seen, at, b.counted,
        {&b.answer.policy, &b.answer.ratio, &rounded<S>(b.loss), &rounded<S>(b.d_policy)});
    write(b.loss, at, out.loss);
    write(b.d_policy, at, out.d_policy);
    write(b.reward, at, out.reward);
  });
  return seen;
}

/// Adds x by class. A row that is not finite is left out, so that it spoils its own results, which
/// are reported, and not those of the other class.
template <class R>
void add_by_class(const unpaired_block<R>& b, const block<R>& x, tally<class_sum::size>& sums) {
  block_tally<class_sum::size> here;
  const several<double> none = 0;
  const several<double> one = 1;
  for (int i = 0; i < block_size; i += lanes<double>) {
    const auto finite = [&](const block<R>& y) {
      return load_wide(y, i) - load_wide(y, i) == none;
    };
    const auto taken =
        none < load_wide(b.counted, i) && finite(b.answer.policy) && finite(b.answer.ratio);
    const auto up = none < load_wide(b.desirable, i);
    const several<double> n = select(taken, one, none);
    const several<double> term = select(taken, load_wide(x, i), none);
    here.add(class_sum::n_desirable, i, select(up, n, none));
    here.add(class_sum::n_undesirable, i, select(up, none, n));
    here.add(class_sum::desirable, i, select(up, term, none));
    here.add(class_sum::undesirable, i, select(up, none, term));
  }
  here.add_to(sums);
}

template <storage S>
tally<class_sum::size> class_ratios(const unpaired_batch<S>& in, range piece) {
  tally<class_sum::size> seen;
  unpaired_block<compute_t<S>> b;
  for_each_block(piece, [&](range at) {
    b.read(in, at);
    add_by_class(b, b.answer.ratio, seen);
  });
  return seen;
}

template <storage S, class Loss>
tally<class_sum::size> class_slopes(const Loss& loss, const unpaired_batch<S>& in,
                                    double z_desirable, double z_undesirable, range piece) {
  tally<class_sum::size> seen;
  unpaired_block<compute_t<S>> b;
  for_each_block(piece, [&](range at) {
    b.read(in, at);
    b.differentiate(loss, z_desirable, z_undesirable);
    add_by_class(b, b.d_z, seen);
  });
  return seen;
}

template <storage S>
tally<1> mismatched_ratios(strided_span<const S> policy, strided_span<const S> reference,
                           strided_span<const std::int32_t> tokens, range piece) {
  tally<1> seen;
  completion_block<compute_t<S>> b;
  for_each_block(piece, [&](range at) {
    b.template read<S>(policy, reference, tokens, at);
    b.keep(b.tokens);
    block_tally<1> here;
    for (int i = 0; i < block_size; i += lanes<double>) here.add(0, i, load_wide(b.ratio, i));
    here.add_to(seen);
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
}  // namespace prospect::inline v0::cpu::detail
