// Phase 2 on the CPU: sequence log-probabilities in; losses, coefficients, rewards and metrics out.
// One pass over the rows for every loss, built-in or the caller's own; sums in fp64 and fixed
// order.
#pragma once

#include <prospect/cpu/checks.hpp>
#include <prospect/reference_point.hpp>

namespace prospect::inline v0::cpu {

namespace detail {

template <storage S>
void put(strided_span<S> row, std::int64_t i, double x) {
  if (!row.empty()) row[i] = store<S>(static_cast<compute_t<S>>(x));
}

/// Row `i` as a loss sees it. Rows that are not given were found unread, and stay at neutral
/// values.
template <storage S>
completion<compute_t<S>> completion_at(strided_span<const S> policy,
                                       strided_span<const S> reference,
                                       strided_span<const std::int32_t> tokens, std::int64_t i) {
  using R = compute_t<S>;
  const R p = load(policy[i]);
  return {.policy = p,
          .ratio = reference.empty() ? R(0) : p - load(reference[i]),
          .tokens = tokens.empty() ? R(1) : static_cast<R>(tokens[i])};
}

inline bool counted(strided_span<const std::int32_t> tokens, std::int64_t i) {
  return tokens.empty() || tokens[i] > 0;
}

/// Whether each number is finite, also once it is stored as `S`.
template <storage S, class... X>
bool all_finite(X... x) {
  return (std::isfinite(load(store<S>(static_cast<compute_t<S>>(x)))) && ...);
}

template <class R>
bool all_finite(const completion<R>& c) {
  return std::isfinite(c.policy) && std::isfinite(c.ratio);
}

template <class Metrics>
void note_nonfinite(Metrics& metrics, bool finite, std::int64_t i) {
  metrics.nonfinite.sum += finite ? 0 : 1;
  metrics.nonfinite.count += 1;
  if (!finite && metrics.first_nonfinite < 0) metrics.first_nonfinite = i;
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
/// @tparam S storage type of the rows; arithmetic is fp32 (fp64 for double), sums are fp64.
/// @throws std::invalid_argument, before any work: a row of the wrong size, a missing row that this
///         loss reads, an output of stride 0, a negative token count, an invalid hyper-parameter.
template <storage S, class Loss>
paired_metrics evaluate(const Loss& loss, const paired_batch<S>& in, const paired_outputs<S>& out,
                        normaliser by = normaliser::mean()) {
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
  detail::token_counts("chosen_tokens", in.chosen_tokens, n);
  detail::token_counts("rejected_tokens", in.rejected_tokens, n);
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

  const auto counts = [&](std::int64_t i) {
    return detail::counted(in.chosen_tokens, i) && detail::counted(in.rejected_tokens, i);
  };
  double n_counted = 0;
  for (std::int64_t i = 0; i < n; ++i) n_counted += counts(i) ? 1 : 0;
  const double factor = by.factor(n_counted);
  const double scale = reward_scale(loss);

  paired_metrics metrics;
  for (std::int64_t i = 0; i < n; ++i) {
    pair<R> sample;
    paired_value<R> value{};
    double reward_chosen = 0;
    double reward_rejected = 0;
    if (counts(i)) {
      sample = {.chosen = detail::completion_at(in.policy_chosen, in.reference_chosen,
                                                in.chosen_tokens, i),
                .rejected = detail::completion_at(in.policy_rejected, in.reference_rejected,
                                                  in.rejected_tokens, i)};
      value = differentiate(loss, sample);
      reward_chosen = scale * sample.chosen.ratio;
      reward_rejected = scale * sample.rejected.ratio;
      metrics.loss.add(value.loss);
      metrics.rewards_chosen.add(reward_chosen);
      metrics.rewards_rejected.add(reward_rejected);
      metrics.rewards_margins.add(reward_chosen - reward_rejected);
      metrics.rewards_accuracies.add(reward_chosen > reward_rejected ? 1 : 0);
      metrics.logps_chosen.add(sample.chosen.policy);
      metrics.logps_rejected.add(sample.rejected.policy);
      detail::note_nonfinite(
          metrics,
          detail::all_finite(sample.chosen) && detail::all_finite(sample.rejected) &&
              detail::all_finite<S>(value.loss, factor * value.d_chosen, factor * value.d_rejected),
          i);
    }
    detail::put(out.loss, i, value.loss);
    detail::put(out.d_policy_chosen, i, factor * value.d_chosen);
    detail::put(out.d_policy_rejected, i, factor * value.d_rejected);
    detail::put(out.reward_chosen, i, reward_chosen);
    detail::put(out.reward_rejected, i, reward_rejected);
  }
  metrics.total = factor * metrics.loss.sum;
  return metrics;
}

namespace detail {

/// What one class of an unpaired batch is measured against, and what every row of that class adds
/// to its own coefficient because another class's reference point depends on it.
struct class_terms {
  double z = 0;
  double attached = 0;
};

template <storage S, class Loss>
void check_unpaired(const Loss& loss, const unpaired_batch<S>& in, const unpaired_outputs<S>& out,
                    const normaliser& by) {
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
  token_counts("tokens", in.tokens, n);
  output_row("loss", out.loss, n);
  output_row("d_policy", out.d_policy, n);
  output_row("reward", out.reward, n);
  if (n == 0) return;
  reference_rows<R>(loss, {{"reference", !in.reference.empty()}});
  tokens_rows<R>(loss, {{"tokens", !in.tokens.empty()}});
}

template <storage S>
double count_rows(const unpaired_batch<S>& in) {
  double n = 0;
  for (std::int64_t i = 0; i < in.policy.size(); ++i) n += counted(in.tokens, i) ? 1 : 0;
  return n;
}

template <storage S>
unpaired<compute_t<S>> sample_at(const unpaired_batch<S>& in, std::int64_t i, double z) {
  return {.answer = completion_at(in.policy, in.reference, in.tokens, i),
          .z = static_cast<compute_t<S>>(z),
          .desirable = in.desirable[i] != 0};
}

/// Rows that take part in a class's mean. One that is not finite is left out, so that it spoils its
/// own results, which are reported, and not those of the other class.
template <storage S>
bool in_baseline(const unpaired_batch<S>& in, std::int64_t i) {
  return counted(in.tokens, i) && all_finite(sample_at(in, i, 0.0).answer);
}

template <storage S, class Loss>
unpaired_metrics evaluate_rows(const Loss& loss, const unpaired_batch<S>& in,
                               const unpaired_outputs<S>& out, double factor,
                               const class_terms& desirable, const class_terms& undesirable) {
  using R = compute_t<S>;
  const double scale = reward_scale(loss);
  unpaired_metrics metrics;
  for (std::int64_t i = 0; i < in.policy.size(); ++i) {
    unpaired_value<R> value{};
    double coefficient = 0;
    double reward = 0;
    if (counted(in.tokens, i)) {
      const class_terms& terms = in.desirable[i] != 0 ? desirable : undesirable;
      const unpaired<R> sample = sample_at(in, i, terms.z);
      value = differentiate(loss, sample);
      coefficient = factor * (value.d_policy + terms.attached);
      reward = scale * sample.answer.ratio;
      metrics.loss.add(value.loss);
      (sample.desirable ? metrics.rewards_chosen : metrics.rewards_rejected).add(reward);
      (sample.desirable ? metrics.logps_chosen : metrics.logps_rejected).add(sample.answer.policy);
      note_nonfinite(metrics, all_finite(sample.answer) && all_finite<S>(value.loss, coefficient),
                     i);
    }
    put(out.loss, i, value.loss);
    put(out.d_policy, i, coefficient);
    put(out.reward, i, reward);
  }
  metrics.total = factor * metrics.loss.sum;
  return metrics;
}

}  // namespace detail

/// Evaluates an unpaired loss against a given reference point on n completions.
///
/// Shapes, reduction, empty rows, errors: as for pairs, with n = `in.policy.size()`. A batch of one
/// class only is fine: the absent class has count 0 in the metrics.
template <storage S, class Loss>
unpaired_metrics evaluate(const Loss& loss, const unpaired_batch<S>& in,
                          const reference_point& point, const unpaired_outputs<S>& out,
                          normaliser by = normaliser::mean()) {
  detail::check_unpaired(loss, in, out, by);
  const detail::class_terms terms{.z = point.z};
  unpaired_metrics metrics =
      detail::evaluate_rows(loss, in, out, by.factor(detail::count_rows(in)), terms, terms);
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

template <storage S>
class_points cross_class_points(const unpaired_batch<S>& in) {
  sum_count desirable;
  sum_count undesirable;
  for (std::int64_t i = 0; i < in.policy.size(); ++i) {
    if (!detail::in_baseline(in, i)) continue;
    const double ratio = detail::sample_at(in, i, 0.0).answer.ratio;
    (in.desirable[i] != 0 ? desirable : undesirable).add(ratio);
  }
  return {.desirable = reference_point::from(desirable),
          .undesirable = reference_point::from(undesirable),
          .n_desirable = desirable.count,
          .n_undesirable = undesirable.count};
}

/// HALOs' SimpleKTO (with `kto` as the loss): each class against the other class's clamped mean
/// log-ratio, through which the gradient passes; the clamp's slope at 0 is 1.
///
///   z_c = max(0, mean of desirable log-ratios), z_r likewise;  desirable rows see z_r, others z_c
///   dL/da_i = own term + 1[mean a >= 0] (1 / n_c) sum_j dL_j/dz_c
///
/// In `metrics`, `kl` holds the baselines of the classes that are present.
template <storage S, class Loss>
unpaired_metrics evaluate(const Loss& loss, const unpaired_batch<S>& in, cross_class,
                          const unpaired_outputs<S>& out, normaliser by = normaliser::mean()) {
  detail::check_unpaired(loss, in, out, by);
  const class_points points = cross_class_points(in);

  double d_z_desirable = 0;
  double d_z_undesirable = 0;
  for (std::int64_t i = 0; i < in.policy.size(); ++i) {
    if (!detail::in_baseline(in, i)) continue;
    const bool desirable = in.desirable[i] != 0;
    const double z = desirable ? points.undesirable.z : points.desirable.z;
    const double d_z = differentiate(loss, detail::sample_at(in, i, z)).d_z;
    (desirable ? d_z_undesirable : d_z_desirable) += d_z;
  }
  const auto attached = [](const reference_point& own, double d_z, double n) {
    return own.raw >= 0 && n > 0 ? d_z / n : 0.0;
  };
  unpaired_metrics metrics = detail::evaluate_rows(
      loss, in, out, by.factor(detail::count_rows(in)),
      {.z = points.undesirable.z,
       .attached = attached(points.desirable, d_z_desirable, points.n_desirable)},
      {.z = points.desirable.z,
       .attached = attached(points.undesirable, d_z_undesirable, points.n_undesirable)});
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
template <storage S>
sum_count mismatched_kl(strided_span<const std::type_identity_t<S>> policy,
                        strided_span<const std::type_identity_t<S>> reference,
                        strided_span<const std::int32_t> tokens = {}) {
  detail::require_row("reference", reference, policy.size());
  detail::token_counts("tokens", tokens, policy.size());
  sum_count observed;
  for (std::int64_t i = 0; i < policy.size(); ++i) {
    if (detail::counted(tokens, i)) {
      observed.add(detail::completion_at<S>(policy, reference, tokens, i).ratio);
    }
  }
  return observed;
}

}  // namespace prospect::inline v0::cpu
