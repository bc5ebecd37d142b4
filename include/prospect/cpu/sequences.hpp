// Phase 2 on the CPU: sequence log-probabilities in; losses, coefficients, rewards and metrics out.
// One pass over the rows for every loss, built-in or the caller's own, as vector code where the
// loss is branch-free; sums in fp64 and fixed order. Threads change nothing but the time. Arguments
// are checked here; the loops are in detail/sequence_kernels.hpp.
#pragma once

#include <prospect/cpu/checks.hpp>
#include <prospect/cpu/detail/sequence_kernels.hpp>
#include <prospect/reference_point.hpp>

#include <algorithm>
#include <initializer_list>
#include <iterator>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v1::cpu {

namespace detail {

/// Checks token counts and finds how many rows have tokens on every side, of which there are one or
/// two.
template <executor E>
double count_rows(std::initializer_list<given_tokens> sides, std::int64_t n, E& on) {
  for (const given_tokens& side : sides) optional_row(side.name, side.row, n);
  const auto given = [](const given_tokens& side) { return !side.row.empty(); };
  if (std::none_of(sides.begin(), sides.end(), given)) return static_cast<double>(n);
  const token_tally seen = in_pieces(n, on, [&](range piece) {
    row_reader<std::int32_t> side{sides.begin()->row};
    row_reader<std::int32_t> other{std::prev(sides.end())->row};
    token_tally all;
    for_each_block(piece,
                   [&](range at) { all.add(side.read(at), other.read(at), whole_vectors(at)); });
    return all;
  });
  if (seen.negative) {
    for (const given_tokens& side : sides) token_counts(side.name, side.row, n);
  }
  return static_cast<double>(seen.counted);
}

/// With the kernels of any instruction set.
template <storage S, class Loss, executor E>
paired_metrics evaluate_pairs(const paired_kernels<S, Loss>& kernels, const Loss& loss,
                              const paired_batch<S>& in, const paired_outputs<S>& out,
                              const normaliser& by, E& on) {
  using R = compute_t<S>;
  const std::int64_t n = in.policy_chosen.size();
  parameters(problem(loss));
  valid(by);
  require_row("policy_rejected", in.policy_rejected, n);
  optional_row("reference_chosen", in.reference_chosen, n);
  optional_row("reference_rejected", in.reference_rejected, n);
  const double n_counted = count_rows(
      {{"chosen_tokens", in.chosen_tokens}, {"rejected_tokens", in.rejected_tokens}}, n, on);
  output_row("loss", out.loss, n);
  output_row("d_policy_chosen", out.d_policy_chosen, n);
  output_row("d_policy_rejected", out.d_policy_rejected, n);
  output_row("reward_chosen", out.reward_chosen, n);
  output_row("reward_rejected", out.reward_rejected, n);
  if (n == 0) return {};
  reference_rows<R>(loss, {{"reference_chosen", !in.reference_chosen.empty()},
                           {"reference_rejected", !in.reference_rejected.empty()}});
  tokens_rows<R>(loss, {{"chosen_tokens", !in.chosen_tokens.empty()},
                        {"rejected_tokens", !in.rejected_tokens.empty()}});

  const double factor = by.factor(n_counted);

  using sum = paired_sum;
  const auto sums =
      in_pieces(n, on, [&](range piece) { return kernels.results(loss, in, out, factor, piece); });
  const auto of = [&](int which) {
    return sum_count{.sum = sums.total(which), .count = n_counted};
  };
  return {.loss = of(sum::loss),
          .rewards_chosen = of(sum::chosen),
          .rewards_rejected = of(sum::rejected),
          .rewards_margins = {.sum = sums.total(sum::chosen) - sums.total(sum::rejected),
                              .count = n_counted},
          .rewards_accuracies = of(sum::accurate),
          .logps_chosen = of(sum::logp_chosen),
          .logps_rejected = of(sum::logp_rejected),
          .nonfinite = {.sum = static_cast<double>(sums.nonfinite), .count = n_counted},
          .first_nonfinite = sums.first_nonfinite,
          .total = factor * of(sum::loss).sum};
}

}  // namespace detail

/// Evaluates a paired loss, its gradient and its metrics on n pairs.
///
/// Shapes: every given row has n = `in.policy_chosen.size()` elements; n = 0 is allowed. Losses are
/// per pair and unreduced; coefficients are dL/dP times the normaliser's factor, so that spreading
/// them over tokens gives the gradient of `total`. A pair with an empty side (0 tokens) is not
/// read: its results are 0 and it is not counted. A NaN or infinity stays in its own pair and is
/// reported in `nonfinite`.
///
/// Threads are used from 16384 pairs on, through the executor `on`; results are the same bits
/// whatever it is. A loss that is `branch_free` is evaluated as vector code (fp32).
///
/// @tparam S storage type of the rows; arithmetic is fp32 (fp64 for double), sums are fp64.
/// @throws std::invalid_argument, before any work: a row of the wrong size, a missing row that this
///         loss reads, an output of stride 0, a negative token count, an invalid hyper-parameter.
template <storage S, class Loss, executor E = thread_pool>
paired_metrics evaluate(const Loss& loss, const paired_batch<S>& in, const paired_outputs<S>& out,
                        normaliser by = normaliser::mean(), E& on = thread_pool::shared()) {
  static_assert(paired_loss<Loss, compute_t<S>>,
                "prospect: a paired batch needs a paired loss: a trivially copyable type with "
                "`template <class T> T operator()(const prospect::pair<T>&) const`, "
                "built from prospect's primitives (marked PROSPECT_HD if it is to run on CUDA)");
  return detail::evaluate_pairs(detail::compiled_paired_kernels<S, Loss>(), loss, in, out, by, on);
}

/// The clamped mean log-ratio of each class (nats): what `cross_class` measures the other class
/// against. An absent class gives 0; rows that are not finite are left out.
struct class_points {
  reference_point desirable;
  reference_point undesirable;
  double n_desirable = 0;
  double n_undesirable = 0;
};

namespace detail {

template <storage S, executor E>
class_points class_points_of(tally<class_sum::size> (*ratios)(const unpaired_batch<S>&, range),
                             const unpaired_batch<S>& in, E& on) {
  using sum = class_sum;
  const auto sums = in_pieces(in.policy.size(), on, [&](range piece) { return ratios(in, piece); });
  const auto of = [&](int which) { return sums.total(which); };
  return {.desirable =
              reference_point::from({.sum = of(sum::desirable), .count = of(sum::n_desirable)}),
          .undesirable =
              reference_point::from({.sum = of(sum::undesirable), .count = of(sum::n_undesirable)}),
          .n_desirable = of(sum::n_desirable),
          .n_undesirable = of(sum::n_undesirable)};
}

}  // namespace detail

/// The points of both classes of a batch, in one pass over it.
template <storage S, executor E = thread_pool>
class_points cross_class_points(const unpaired_batch<S>& in, E& on = thread_pool::shared()) {
  return detail::class_points_of(detail::class_ratios<S>, in, on);
}

namespace detail {

template <class Loss, class R>
constexpr void must_be_unpaired() {
  static_assert(
      unpaired_loss<Loss, R>,
      "prospect: an unpaired batch needs an unpaired loss: a trivially copyable type with "
      "`template <class T> T operator()(const prospect::unpaired<T>&) const`, "
      "built from prospect's primitives (marked PROSPECT_HD if it is to run on CUDA)");
}

/// Checks a call and counts its rows.
template <storage S, class Loss, executor E>
double check_unpaired(const Loss& loss, const unpaired_batch<S>& in, const unpaired_outputs<S>& out,
                      const normaliser& by, E& on) {
  using R = compute_t<S>;
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

template <storage S, class Loss, executor E>
unpaired_metrics evaluate_rows(const unpaired_kernels<S, Loss>& kernels, const Loss& loss,
                               const unpaired_batch<S>& in, const unpaired_outputs<S>& out,
                               double factor, double n_counted, const class_terms& desirable,
                               const class_terms& undesirable, E& on) {
  using sum = unpaired_sum;
  const auto sums = in_pieces(in.policy.size(), on, [&](range piece) {
    return kernels.results(loss, in, out, factor, desirable, undesirable, piece);
  });
  const double n_desirable = sums.total(sum::desirable);
  const auto of = [&](int which, double count) {
    return sum_count{.sum = sums.total(which), .count = count};
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

/// Against a point that is given.
template <storage S, class Loss, executor E>
unpaired_metrics evaluate_completions(const unpaired_kernels<S, Loss>& kernels, const Loss& loss,
                                      const unpaired_batch<S>& in, const reference_point& point,
                                      const unpaired_outputs<S>& out, const normaliser& by, E& on) {
  const double n_counted = check_unpaired(loss, in, out, by, on);
  const class_terms terms{.z = point.z};
  unpaired_metrics metrics =
      evaluate_rows(kernels, loss, in, out, by.factor(n_counted), n_counted, terms, terms, on);
  metrics.kl.add(point.z);
  metrics.kl_unclamped.add(point.raw);
  return metrics;
}

/// Against the other class.
template <storage S, class Loss, executor E>
unpaired_metrics evaluate_completions(const unpaired_kernels<S, Loss>& kernels, const Loss& loss,
                                      const unpaired_batch<S>& in, cross_class,
                                      const unpaired_outputs<S>& out, const normaliser& by, E& on) {
  const double n_counted = check_unpaired(loss, in, out, by, on);
  const class_points points = class_points_of(kernels.ratios, in, on);

  // Desirable rows are measured against the undesirable ones, and so give those their d_z.
  using sum = class_sum;
  const auto d_z = in_pieces(in.policy.size(), on, [&](range piece) {
    return kernels.slopes(loss, in, points.undesirable.z, points.desirable.z, piece);
  });
  const auto attached = [](const reference_point& own, double others, double n) {
    return own.raw >= 0 && n > 0 ? others / n : 0.0;
  };
  unpaired_metrics metrics = evaluate_rows(
      kernels, loss, in, out, by.factor(n_counted), n_counted,
      {.z = points.undesirable.z,
       .attached = attached(points.desirable, d_z.total(sum::undesirable), points.n_desirable)},
      {.z = points.desirable.z,
       .attached = attached(points.undesirable, d_z.total(sum::desirable), points.n_undesirable)},
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

}  // namespace detail

/// Evaluates an unpaired loss against a given reference point on n completions.
///
/// Shapes, reduction, empty rows, errors: as for pairs, with n = `in.policy.size()`. A batch of one
/// class only is fine: the absent class has count 0 in the metrics.
template <storage S, class Loss, executor E = thread_pool>
unpaired_metrics evaluate(const Loss& loss, const unpaired_batch<S>& in,
                          const reference_point& point, const unpaired_outputs<S>& out,
                          normaliser by = normaliser::mean(), E& on = thread_pool::shared()) {
  detail::must_be_unpaired<Loss, compute_t<S>>();
  return detail::evaluate_completions(detail::compiled_unpaired_kernels<S, Loss>(), loss, in, point,
                                      out, by, on);
}

/// HALOs' SimpleKTO (with `kto` as the loss): each class against the other class's clamped mean
/// log-ratio, through which the gradient passes; the clamp's slope at 0 is 1.
///
///   z_c = max(0, mean of desirable log-ratios), z_r likewise;  desirable rows see z_r, others z_c
///   dL/da_i = own term + 1[mean a >= 0] (1 / n_c) sum_j dL_j/dz_c
///
/// In `metrics`, `kl` holds the baselines of the classes that are present.
template <storage S, class Loss, executor E = thread_pool>
unpaired_metrics evaluate(const Loss& loss, const unpaired_batch<S>& in, cross_class point,
                          const unpaired_outputs<S>& out, normaliser by = normaliser::mean(),
                          E& on = thread_pool::shared()) {
  detail::must_be_unpaired<Loss, compute_t<S>>();
  return detail::evaluate_completions(detail::compiled_unpaired_kernels<S, Loss>(), loss, in, point,
                                      out, by, on);
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
    return detail::mismatched_ratios<S>(policy, reference, tokens, piece);
  });
  return {.sum = sums.total(0), .count = n_counted};
}

}  // namespace prospect::inline v1::cpu
PROSPECT_STRICT_END
