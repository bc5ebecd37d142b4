// Phase 2 on the CPU: sequence log-probabilities in; losses, coefficients, rewards and metrics out.
// One pass over the rows for every loss, built-in or the caller's own, as vector code where the
// loss is branch-free; sums in fp64 and fixed order. Threads change nothing but the time. What
// stands here picks the loops; calls and checks are in detail/sequence_calls.hpp, the loops in
// detail/paired_loops.hpp and unpaired_loops.hpp.
#pragma once

#include <prospect/cpu/detail/sequence_calls.hpp>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cpu {

namespace detail {
inline namespace PROSPECT_CPU_ISA {

template <class Loss, class R>
constexpr void must_be_paired() {
  static_assert(paired_loss<Loss, R>,
                "prospect: a paired batch needs a paired loss: a trivially copyable type with "
                "`template <class T> T operator()(const prospect::pair<T>&) const`, "
                "built from prospect's primitives (marked PROSPECT_HD if it is to run on CUDA)");
}
template <class Loss, class R>
constexpr void must_be_unpaired() {
  static_assert(
      unpaired_loss<Loss, R>,
      "prospect: an unpaired batch needs an unpaired loss: a trivially copyable type with "
      "`template <class T> T operator()(const prospect::unpaired<T>&) const`, "
      "built from prospect's primitives (marked PROSPECT_HD if it is to run on CUDA)");
}

/// With the loops that this unit is compiled with.
template <std::floating_point R, class Loss, class In, class Out, executor E>
paired_metrics evaluate_pairs_in(const Loss& loss, const In& in, const Out& out,
                                 const normaliser& by, E& on) {
  must_be_paired<Loss, R>();
  return evaluate_pairs(compiled_paired_kernels<R, Loss>(), loss, in, out, by, on);
}
template <std::floating_point R, class Loss, class Point, executor E>
unpaired_metrics evaluate_completions_in(const Loss& loss, const unpaired_batch<>& in,
                                         const Point& point, const unpaired_outputs<>& out,
                                         const normaliser& by, E& on) {
  must_be_unpaired<Loss, R>();
  return evaluate_completions(compiled_unpaired_kernels<R, Loss>(), loss, in, point, out, by, on);
}
template <class Loss, class Point, executor E>
unpaired_metrics evaluate_any(const Loss& loss, const unpaired_batch<>& in, const Point& point,
                              const unpaired_outputs<>& out, const normaliser& by, E& on) {
  return prospect::detail::in_fp64(in)
             ? evaluate_completions_in<double>(loss, in, point, out, by, on)
             : evaluate_completions_in<float>(loss, in, point, out, by, on);
}

}  // namespace PROSPECT_CPU_ISA
}  // namespace detail

inline namespace PROSPECT_CPU_ISA {

/// Evaluates a paired loss, its gradient and its metrics on n pairs.
///
/// Shapes: every given row has n = `in.policy_chosen.size()` elements; n = 0 is allowed. Losses are
/// per pair and unreduced; coefficients are dL/dP times the normaliser's factor, so that spreading
/// them over tokens gives the gradient of `total`. A pair with an empty side (0 tokens) is not
/// read: its results are 0 and it is not counted. A NaN or infinity stays in its own pair and is
/// reported in `nonfinite`.
///
/// Rows hold what they hold, fp32, fp64 or 16 bits, and need not agree: arithmetic is fp64, the
/// log-ratio's too, if a policy or reference row is, else fp32. Results are rounded once to what
/// they are stored as; sums are fp64.
///
/// Threads are used from 16384 pairs on, through the executor `on`; results are the same bits
/// whatever it is. Nothing is allocated. A loss that is `branch_free` is evaluated as vector code
/// (fp32).
///
/// @throws std::invalid_argument, before any work: a row of the wrong size or that describes no
///         memory, a missing row that this loss reads, a margin that it does not, an output of
///         stride 0, a negative token count, an invalid hyper-parameter.
template <class Loss, executor E = thread_pool>
paired_metrics evaluate(const Loss& loss, const paired_batch<>& in, const paired_outputs<>& out,
                        normaliser by = normaliser::mean(), E& on = thread_pool::shared()) {
  return prospect::detail::in_fp64(in) ? detail::evaluate_pairs_in<double>(loss, in, out, by, on)
                                       : detail::evaluate_pairs_in<float>(loss, in, out, by, on);
}
/// The same where all rows are made of S.
template <storage S, class Loss, executor E = thread_pool>
paired_metrics evaluate(const Loss& loss, const paired_batch<S>& in, const paired_outputs<S>& out,
                        normaliser by = normaliser::mean(), E& on = thread_pool::shared()) {
  return detail::evaluate_pairs_in<compute_t<S>>(loss, prospect::detail::any_rows(in),
                                                 prospect::detail::any_rows(out), by, on);
}

/// The same for pairs among n = `in.policy.size()` sequences: `chosen` and `rejected` hold an index
/// for each pair. Losses and rewards are per pair, coefficients per sequence, per pair, or both.
///
/// @throws std::invalid_argument also for an index that names no sequence, and, where `d_policy` is
///         wanted, for a sequence that is named twice: by name and position.
template <class Loss, executor E = thread_pool>
paired_metrics evaluate(const Loss& loss, const indexed_pairs& in, const indexed_outputs& out,
                        normaliser by = normaliser::mean(), E& on = thread_pool::shared()) {
  return prospect::detail::in_fp64(prospect::detail::any_rows(in))
             ? detail::evaluate_pairs_in<double>(loss, in, out, by, on)
             : detail::evaluate_pairs_in<float>(loss, in, out, by, on);
}

/// The points of both classes of a batch, in one pass over it.
template <executor E = thread_pool>
class_points cross_class_points(const unpaired_batch<>& in, E& on = thread_pool::shared()) {
  detail::check_completions(in, on);
  return detail::class_points_of(
      prospect::detail::in_fp64(in) ? detail::class_ratios<double> : detail::class_ratios<float>,
      in, on);
}
template <storage S, executor E = thread_pool>
class_points cross_class_points(const unpaired_batch<S>& in, E& on = thread_pool::shared()) {
  return cross_class_points(prospect::detail::any_rows(in), on);
}

/// Evaluates an unpaired loss against a given reference point on n completions.
///
/// Shapes, rows, reduction, empty rows, errors: as for pairs, with n = `in.policy.size()`. A batch
/// of one class only is fine: the absent class has count 0 in the metrics. A point that is not
/// finite is refused, because it would spoil every row.
template <class Loss, executor E = thread_pool>
unpaired_metrics evaluate(const Loss& loss, const unpaired_batch<>& in,
                          const reference_point& point, const unpaired_outputs<>& out,
                          normaliser by = normaliser::mean(), E& on = thread_pool::shared()) {
  return detail::evaluate_any(loss, in, point, out, by, on);
}
template <storage S, class Loss, executor E = thread_pool>
unpaired_metrics evaluate(const Loss& loss, const unpaired_batch<S>& in,
                          const reference_point& point, const unpaired_outputs<S>& out,
                          normaliser by = normaliser::mean(), E& on = thread_pool::shared()) {
  return detail::evaluate_completions_in<compute_t<S>>(loss, prospect::detail::any_rows(in), point,
                                                       prospect::detail::any_rows(out), by, on);
}

/// HALOs' SimpleKTO (with `kto` as the loss): each class against the other class's clamped mean
/// log-ratio, through which the gradient passes.
///
///   z_c = max(0, mean of desirable log-ratios), z_r likewise;  desirable rows see z_r, others z_c
///   dL/da_i = own term + 1[mean a >= 0] (1 / n_c) sum_j w_j dL_j/dz_c,  w_j the weights
///
/// The clamp passes gradient 1 at a mean of exactly 0, where every run starts, as torch.clamp did
/// when HALOs was written and up to PyTorch 2.13; from 2.14 on PyTorch passes 0 there.
///
/// In `metrics`, `kl` holds the baselines of the classes that are present.
template <class Loss, executor E = thread_pool>
unpaired_metrics evaluate(const Loss& loss, const unpaired_batch<>& in, cross_class point,
                          const unpaired_outputs<>& out, normaliser by = normaliser::mean(),
                          E& on = thread_pool::shared()) {
  return detail::evaluate_any(loss, in, point, out, by, on);
}
template <storage S, class Loss, executor E = thread_pool>
unpaired_metrics evaluate(const Loss& loss, const unpaired_batch<S>& in, cross_class point,
                          const unpaired_outputs<S>& out, normaliser by = normaliser::mean(),
                          E& on = thread_pool::shared()) {
  return detail::evaluate_completions_in<compute_t<S>>(loss, prospect::detail::any_rows(in), point,
                                                       prospect::detail::any_rows(out), by, on);
}

/// Observes the KL divergence from mismatched rows: element i holds the log-probabilities of some
/// other row's completion under row i's prompt (`mismatched_row`). Rows with 0 tokens are skipped:
/// a batch with nothing to pair gives such rows and observes nothing. Rows that are not finite are
/// left out, so that one of them spoils no step, and counted in `nonfinite`.
///
/// @returns the sum of log-ratios and their number, ready for an all-reduce and then
///          `reference_point::from`.
/// @throws std::invalid_argument if there are no rows, or they differ in size.
template <executor E = thread_pool>
observation mismatched_kl(const const_any_row& policy, const const_any_row& reference,
                          strided_span<const std::int32_t> tokens = {},
                          E& on = thread_pool::shared()) {
  const bool fp64 = prospect::detail::is_fp64(policy) || prospect::detail::is_fp64(reference);
  return fp64 ? detail::observe<double>(policy, reference, tokens, on)
              : detail::observe<float>(policy, reference, tokens, on);
}
template <storage S, executor E = thread_pool>
observation mismatched_kl(strided_span<const std::type_identity_t<S>> policy,
                          strided_span<const std::type_identity_t<S>> reference,
                          strided_span<const std::int32_t> tokens = {},
                          E& on = thread_pool::shared()) {
  return detail::observe<compute_t<S>>(policy, reference, tokens, on);
}

/// The log-ratios of a batch's own rows, of both classes together, which BCO's `running_point` is
/// fed with. Rows with 0 tokens are skipped, those that are not finite left out and counted.
/// @throws std::invalid_argument for rows that differ in size.
template <executor E = thread_pool>
observation observed_log_ratios(const unpaired_batch<>& in, E& on = thread_pool::shared()) {
  if (in.policy.empty()) return {};
  return mismatched_kl(in.policy, in.reference, in.tokens, on);
}

}  // namespace PROSPECT_CPU_ISA
}  // namespace prospect::inline v2::cpu
PROSPECT_STRICT_END
