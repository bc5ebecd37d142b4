// Phase 2 on the CPU: sequence log-probabilities in; losses, coefficients, rewards and metrics out.
// One pass over the rows for every loss, built-in or the caller's own, as vector code where the
// loss is branch-free; sums in fp64 and fixed order. Threads change nothing but the time.
#pragma once

#include <prospect/cpu/checks.hpp>
#include <prospect/cpu/detail/samples.hpp>
#include <prospect/reference_point.hpp>

namespace prospect::inline v0::cpu {

namespace detail {
inline namespace PROSPECT_CPU_ISA {

/// Checks token counts and finds how many rows have tokens on every side.
template <executor E>
double count_rows(std::initializer_list<given_tokens> sides, std::int64_t n, E& on) {
  for (const given_tokens& side : sides) optional_row(side.name, side.row, n);
  const auto given = [](const given_tokens& side) { return !side.row.empty(); };
  if (std::none_of(sides.begin(), sides.end(), given)) return static_cast<double>(n);
  const token_tally seen = in_pieces(n, on, [&](range piece) {
    token_tally all;
    for_each_block(piece, [&](range at) { all.add(sides, at); });
    return all;
  });
  if (seen.negative) {
    for (const given_tokens& side : sides) token_counts(side.name, side.row, n);
  }
  return static_cast<double>(seen.counted);
}

/// The sums of a paired batch.
struct paired_sum {
  enum { loss, chosen, rejected, margin, accurate, logp_chosen, logp_rejected, size };
};

/// The block's results, from values and derivatives to what is handed out, added to `sums`.
template <class R>
void finish(paired_block<R>& b, double factor, double scale, tally<paired_sum::size>& sums) {
  using at = paired_sum;
  tally<at::size> here;
  const several<double> none = 0;
  const several<double> one = 1;
  for (int i = 0; i < block_size; i += lanes<double>) {
    const several<double> counted = load_wide(b.counted, i);
    const auto add = [&](int which, several<double> x) { here.sum[which].add(i, x); };
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
  sums += here;
}

}  // namespace PROSPECT_CPU_ISA
}  // namespace detail

/// Evaluates a paired loss, its gradient and its metrics on n pairs.
///
/// Shapes: every given row has n = `in.policy_chosen.size()` elements; n = 0 is allowed. Losses are
/// per pair and unreduced; coefficients are dL/dP times the normaliser's factor, so that spreading
/// them over tokens gives the gradient of `total`. A pair with an empty side (0 tokens) is not
/// read: its results are 0 and it is not counted. A NaN or infinity stays in its own pair and is
/// reported in `nonfinite`.
///
/// Threads are used from a quarter of a million pairs on, through the executor `on`; results are
/// the same bits whatever it is. A loss that is `branch_free` is evaluated as vector code (fp32).
///
/// @tparam S storage type of the rows; arithmetic is fp32 (fp64 for double), sums are fp64.
/// @throws std::invalid_argument, before any work: a row of the wrong size, a missing row that this
///         loss reads, an output of stride 0, a negative token count, an invalid hyper-parameter.
template <storage S, class Loss, executor E = thread_pool>
paired_metrics evaluate(const Loss& loss, const paired_batch<S>& in, const paired_outputs<S>& out,
                        normaliser by = normaliser::mean(), E& on = thread_pool::shared()) {
  using R = compute_t<S>;
  static_assert(paired_loss<Loss, R>,
                "prospect: a paired batch needs a paired loss: a trivially copyable type with "
                "`template <class T> T operator()(const prospect::pair<T>&) const`, "
                "built from prospect's primitives (marked PROSPECT_HD if it is to run on CUDA)");
  const std::int64_t n = in.policy_chosen.size();
  detail::parameters(problem(loss));
  detail::valid(by);
  detail::require_row("policy_rejected", in.policy_rejected, n);
  detail::optional_row("reference_chosen", in.reference_chosen, n);
  detail::optional_row("reference_rejected", in.reference_rejected, n);
  const double n_counted = detail::count_rows(
      {{"chosen_tokens", in.chosen_tokens}, {"rejected_tokens", in.rejected_tokens}}, n, on);
  detail::output_row("loss", out.loss, n);
  detail::output_row("d_policy_chosen", out.d_policy_chosen, n);
  detail::output_row("d_policy_rejected", out.d_policy_rejected, n);
  detail::output_row("reward_chosen", out.reward_chosen, n);
  detail::output_row("reward_rejected", out.reward_rejected, n);
  if (n == 0) return {};
  detail::reference_rows<R>(loss, {{"reference_chosen", !in.reference_chosen.empty()},
                                   {"reference_rejected", !in.reference_rejected.empty()}});
  detail::tokens_rows<R>(loss, {{"chosen_tokens", !in.chosen_tokens.empty()},
                                {"rejected_tokens", !in.rejected_tokens.empty()}});

  const double factor = by.factor(n_counted);
  const double scale = reward_scale(loss);

  using sum = detail::paired_sum;
  const auto sums = detail::in_pieces(n, on, [&](detail::range piece) {
    detail::tally<sum::size> seen;
    detail::paired_block<R> b;
    detail::for_each_block(piece, [&](detail::range at) {
      b.read(in, at);
      b.differentiate(loss);
      detail::finish(b, factor, scale, seen);
      seen.note_nonfinite(at, b.counted,
                          {&b.chosen.policy, &b.chosen.ratio, &b.rejected.policy, &b.rejected.ratio,
                           &detail::rounded<S>(b.loss), &detail::rounded<S>(b.d_chosen),
                           &detail::rounded<S>(b.d_rejected)});
      detail::write(b.loss, at, out.loss);
      detail::write(b.d_chosen, at, out.d_policy_chosen);
      detail::write(b.d_rejected, at, out.d_policy_rejected);
      detail::write(b.reward_chosen, at, out.reward_chosen);
      detail::write(b.reward_rejected, at, out.reward_rejected);
    });
    return seen;
  });
  const auto of = [&](int which) {
    return sum_count{.sum = sums.sum[which].total(), .count = n_counted};
  };
  return {.loss = of(sum::loss),
          .rewards_chosen = of(sum::chosen),
          .rewards_rejected = of(sum::rejected),
          .rewards_margins = of(sum::margin),
          .rewards_accuracies = of(sum::accurate),
          .logps_chosen = of(sum::logp_chosen),
          .logps_rejected = of(sum::logp_rejected),
          .nonfinite = {.sum = static_cast<double>(sums.nonfinite), .count = n_counted},
          .first_nonfinite = sums.first_nonfinite,
          .total = factor * of(sum::loss).sum};
}

namespace detail {

/// What one class of an unpaired batch is measured against, and what every row of that class adds
/// to its own coefficient because another class's reference point depends on it.
struct class_terms {
  double z = 0;
  double attached = 0;
};

inline namespace PROSPECT_CPU_ISA {

/// Checks a call and counts its rows.
template <storage S, class Loss, executor E>
double check_unpaired(const Loss& loss, const unpaired_batch<S>& in, const unpaired_outputs<S>& out,
                      const normaliser& by, E& on) {
  using R = compute_t<S>;
  static_assert(
      unpaired_loss<Loss, R>,
      "prospect: an unpaired batch needs an unpaired loss: a trivially copyable type with "
      "`template <class T> T operator()(const prospect::unpaired<T>&) const`, "
      "built from prospect's primitives (marked PROSPECT_HD if it is to run on CUDA)");
  const std::int64_t n = in.policy.size();
  parameters(problem(loss));
  valid(by);
  optional_row("reference", in.reference, n);
  require_row("desirable", in.desirable, n);
  const double n_counted = count_rows({{"tokens", in.tokens}}, n, on);
  output_row("loss", out.loss, n);
  output_row("d_policy", out.d_policy, n);
  output_row("reward", out.reward, n);
  if (n == 0) return 0;
  reference_rows<R>(loss, {{"reference", !in.reference.empty()}});
  tokens_rows<R>(loss, {{"tokens", !in.tokens.empty()}});
  return n_counted;
}

/// The sums of an unpaired batch.
struct unpaired_sum {
  enum { desirable, loss, chosen, rejected, logp_chosen, logp_rejected, size };
};

template <class R>
void finish(unpaired_block<R>& b, double factor, double scale, const class_terms& desirable,
            const class_terms& undesirable, tally<unpaired_sum::size>& sums) {
  using at = unpaired_sum;
  tally<at::size> here;
  const several<double> none = 0;
  const several<double> one = 1;
  for (int i = 0; i < block_size; i += lanes<double>) {
    const auto counted = none < load_wide(b.counted, i);
    const auto up = none < load_wide(b.desirable, i);
    const auto add = [&](int which, several<double> x) { here.sum[which].add(i, x); };
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
  sums += here;
}

template <storage S, class Loss, executor E>
unpaired_metrics evaluate_rows(const Loss& loss, const unpaired_batch<S>& in,
                               const unpaired_outputs<S>& out, double factor, double n_counted,
                               const class_terms& desirable, const class_terms& undesirable,
                               E& on) {
  using R = compute_t<S>;
  using sum = unpaired_sum;
  const double scale = reward_scale(loss);
  const auto sums = in_pieces(in.policy.size(), on, [&](range piece) {
    tally<sum::size> seen;
    unpaired_block<R> b;
    for_each_block(piece, [&](range at) {
      b.read(in, at);
      b.differentiate(loss, desirable.z, undesirable.z);
      finish(b, factor, scale, desirable, undesirable, seen);
      seen.note_nonfinite(
          at, b.counted,
          {&b.answer.policy, &b.answer.ratio, &rounded<S>(b.loss), &rounded<S>(b.d_policy)});
      write(b.loss, at, out.loss);
      write(b.d_policy, at, out.d_policy);
      write(b.reward, at, out.reward);
    });
    return seen;
  });
  const double n_desirable = sums.sum[sum::desirable].total();
  const auto of = [&](int which, double count) {
    return sum_count{.sum = sums.sum[which].total(), .count = count};
  };
  return {.loss = of(sum::loss, n_counted),
          .rewards_chosen = of(sum::chosen, n_desirable),
          .rewards_rejected = of(sum::rejected, n_counted - n_desirable),
          .logps_chosen = of(sum::logp_chosen, n_desirable),
          .logps_rejected = of(sum::logp_rejected, n_counted - n_desirable),
          .kl = {},
          .kl_unclamped = {},
          .nonfinite = {.sum = static_cast<double>(sums.nonfinite), .count = n_counted},
          .first_nonfinite = sums.first_nonfinite,
          .total = factor * of(sum::loss, n_counted).sum};
}

/// Sums over the rows that take part in a class's mean, by class: their number and what
/// `value(block)` holds. A row that is not finite is left out, so that it spoils its own results,
/// which are reported, and not those of the other class.
struct class_sum {
  enum { n_desirable, n_undesirable, desirable, undesirable, size };
};
template <class R>
void add_by_class(const unpaired_block<R>& b, const block<R>& x, tally<class_sum::size>& sums) {
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
    sums.sum[class_sum::n_desirable].add(i, select(up, n, none));
    sums.sum[class_sum::n_undesirable].add(i, select(up, none, n));
    sums.sum[class_sum::desirable].add(i, select(up, term, none));
    sums.sum[class_sum::undesirable].add(i, select(up, none, term));
  }
}

}  // namespace PROSPECT_CPU_ISA
}  // namespace detail

/// Evaluates an unpaired loss against a given reference point on n completions.
///
/// Shapes, reduction, empty rows, errors: as for pairs, with n = `in.policy.size()`. A batch of one
/// class only is fine: the absent class has count 0 in the metrics.
template <storage S, class Loss, executor E = thread_pool>
unpaired_metrics evaluate(const Loss& loss, const unpaired_batch<S>& in,
                          const reference_point& point, const unpaired_outputs<S>& out,
                          normaliser by = normaliser::mean(), E& on = thread_pool::shared()) {
  const double n_counted = detail::check_unpaired(loss, in, out, by, on);
  const detail::class_terms terms{.z = point.z};
  unpaired_metrics metrics =
      detail::evaluate_rows(loss, in, out, by.factor(n_counted), n_counted, terms, terms, on);
  metrics.kl.add(point.z);
  metrics.kl_unclamped.add(point.raw);
  return metrics;
}

/// The clamped mean log-ratio of each class (nats): what `cross_class` measures the other class
/// against. An absent class gives 0; rows that are not finite are left out.
struct class_points {
  reference_point desirable;
  reference_point undesirable;
  double n_desirable = 0;
  double n_undesirable = 0;
};

template <storage S, executor E = thread_pool>
class_points cross_class_points(const unpaired_batch<S>& in, E& on = thread_pool::shared()) {
  using sum = detail::class_sum;
  const auto sums = detail::in_pieces(in.policy.size(), on, [&](detail::range piece) {
    detail::tally<sum::size> seen;
    detail::unpaired_block<compute_t<S>> b;
    detail::for_each_block(piece, [&](detail::range at) {
      b.read(in, at);
      detail::add_by_class(b, b.answer.ratio, seen);
    });
    return seen;
  });
  const auto of = [&](int which) { return sums.sum[which].total(); };
  return {.desirable =
              reference_point::from({.sum = of(sum::desirable), .count = of(sum::n_desirable)}),
          .undesirable =
              reference_point::from({.sum = of(sum::undesirable), .count = of(sum::n_undesirable)}),
          .n_desirable = of(sum::n_desirable),
          .n_undesirable = of(sum::n_undesirable)};
}

/// HALOs' SimpleKTO (with `kto` as the loss): each class against the other class's clamped mean
/// log-ratio, through which the gradient passes; the clamp's slope at 0 is 1.
///
///   z_c = max(0, mean of desirable log-ratios), z_r likewise;  desirable rows see z_r, others z_c
///   dL/da_i = own term + 1[mean a >= 0] (1 / n_c) sum_j dL_j/dz_c
///
/// In `metrics`, `kl` holds the baselines of the classes that are present.
template <storage S, class Loss, executor E = thread_pool>
unpaired_metrics evaluate(const Loss& loss, const unpaired_batch<S>& in, cross_class,
                          const unpaired_outputs<S>& out, normaliser by = normaliser::mean(),
                          E& on = thread_pool::shared()) {
  const double n_counted = detail::check_unpaired(loss, in, out, by, on);
  const class_points points = cross_class_points(in, on);

  // Desirable rows are measured against the undesirable ones, and so give those their d_z.
  using sum = detail::class_sum;
  const auto d_z = detail::in_pieces(in.policy.size(), on, [&](detail::range piece) {
    detail::tally<sum::size> seen;
    detail::unpaired_block<compute_t<S>> b;
    detail::for_each_block(piece, [&](detail::range at) {
      b.read(in, at);
      b.differentiate(loss, points.undesirable.z, points.desirable.z);
      detail::add_by_class(b, b.d_z, seen);
    });
    return seen;
  });
  const auto attached = [](const reference_point& own, const detail::lane_sum& others, double n) {
    return own.raw >= 0 && n > 0 ? others.total() / n : 0.0;
  };
  unpaired_metrics metrics = detail::evaluate_rows(
      loss, in, out, by.factor(n_counted), n_counted,
      {.z = points.undesirable.z,
       .attached = attached(points.desirable, d_z.sum[sum::undesirable], points.n_desirable)},
      {.z = points.desirable.z,
       .attached = attached(points.undesirable, d_z.sum[sum::desirable], points.n_undesirable)},
      on);
  const auto report = [&](const reference_point& point, double n) {
    if (n == 0) return;
    metrics.kl.add(point.z);
    metrics.kl_unclamped.add(point.raw);
  };
  report(points.desirable, points.n_desirable);
  report(points.undesirable, points.n_undesirable);
  return metrics;
}

/// Observes the KL divergence from mismatched rows: element i holds the log-probabilities of some
/// other row's completion under row i's prompt (`mismatched_row`). Rows with 0 tokens are skipped.
///
/// @returns the sum of log-ratios and their number, ready for an all-reduce and then
///          `reference_point::from`.
/// @throws std::invalid_argument if the rows differ in size.
template <storage S, executor E = thread_pool>
sum_count mismatched_kl(strided_span<const std::type_identity_t<S>> policy,
                        strided_span<const std::type_identity_t<S>> reference,
                        strided_span<const std::int32_t> tokens = {},
                        E& on = thread_pool::shared()) {
  detail::require_row("reference", reference, policy.size());
  const double n_counted = detail::count_rows({{"tokens", tokens}}, policy.size(), on);
  const auto sums = detail::in_pieces(policy.size(), on, [&](detail::range piece) {
    detail::tally<1> seen;
    detail::completion_block<compute_t<S>> b;
    detail::for_each_block(piece, [&](detail::range at) {
      b.template read<S>(policy, reference, tokens, at);
      b.keep(b.tokens);
      for (int i = 0; i < detail::block_size; i += detail::lanes<double>) {
        seen.sum[0].add(i, detail::load_wide(b.ratio, i));
      }
    });
    return seen;
  });
  return {.sum = sums.sum[0].total(), .count = n_counted};
}

}  // namespace prospect::inline v0::cpu
