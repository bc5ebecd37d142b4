// Why a call on sequences makes no sense, as far as the host can see: what lies on the device is
// not looked at. The launchers answer cudaErrorInvalidValue, the C API repeats the text.
#pragma once

#include <prospect/core/extent.hpp>
#include <prospect/cuda/batch.hpp>
#include <prospect/losses/reads.hpp>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v1::cuda {

namespace detail {

/// An input that must be there, with an element for each row, aligned and in some memory.
template <class T>
bool input_fits(const strided_span<T>& row, std::int64_t rows) {
  return row.size() == rows && prospect::detail::view_problem(row) == nullptr;
}
/// One that may be left out.
template <class T>
bool option_fits(const strided_span<T>& row, std::int64_t rows) {
  return row.empty() || input_fits(row, rows);
}
/// An output may be left out, and has a place of its own for each row.
template <class T>
bool output_fits(const strided_span<T>& row, std::int64_t rows) {
  return option_fits(row, rows) && (rows < 2 || row.empty() || row.stride() != 0);
}

template <class R, class Loss>
constexpr void must_be_paired() {
  static_assert(paired_loss<Loss, R>,
                "prospect: a paired batch needs a paired loss: a trivially copyable type with "
                "`template <class T> PROSPECT_HD T operator()(const prospect::pair<T>&) const`, "
                "built from prospect's primitives");
}
template <class R, class Loss>
constexpr void must_be_unpaired() {
  static_assert(
      unpaired_loss<Loss, R>,
      "prospect: an unpaired batch needs an unpaired loss: a trivially copyable type with "
      "`template <class T> PROSPECT_HD T operator()(const prospect::unpaired<T>&) const`, "
      "built from prospect's primitives");
}

/// A missing reference is never a zero one.
template <class R, class Loss>
const char* reads_problem(const Loss& loss, bool references_given, bool tokens_given) {
  if (!references_given && reads_reference<R>(loss)) {
    return "reference is missing, and this loss reads it (a zero reference must be passed)";
  }
  if (!tokens_given && reads_tokens<R>(loss)) {
    return "tokens are missing, and this loss averages over them";
  }
  return nullptr;
}

}  // namespace detail

/// Why `evaluate` would refuse these arguments, or nullptr.
template <storage S, class Loss>
const char* problem(const Loss& loss, const paired_batch<S>& in, const paired_outputs<S>& out,
                    const denominator& by) {
  using R = compute_t<S>;
  detail::must_be_paired<R, Loss>();
  const std::int64_t n = in.policy_chosen.size();
  if (const char* why = prospect::problem(loss)) return why;
  if (!by.valid()) return "normaliser needs a positive, finite count";
  if (!detail::input_fits(in.policy_rejected, n)) {
    return "policy_rejected and policy_chosen differ in size";
  }
  if (!detail::option_fits(in.reference_chosen, n)) {
    return "reference_chosen and policy_chosen differ in size";
  }
  if (!detail::option_fits(in.reference_rejected, n)) {
    return "reference_rejected and policy_chosen differ in size";
  }
  if (!detail::option_fits(in.chosen_tokens, n)) {
    return "chosen_tokens and policy_chosen differ in size";
  }
  if (!detail::option_fits(in.rejected_tokens, n)) {
    return "rejected_tokens and policy_chosen differ in size";
  }
  if (!detail::output_fits(out.loss, n)) return "loss must have an element for each pair";
  if (!detail::output_fits(out.d_policy_chosen, n)) {
    return "d_policy_chosen must have an element for each pair";
  }
  if (!detail::output_fits(out.d_policy_rejected, n)) {
    return "d_policy_rejected must have an element for each pair";
  }
  if (!detail::output_fits(out.reward_chosen, n)) {
    return "reward_chosen must have an element for each pair";
  }
  if (!detail::output_fits(out.reward_rejected, n)) {
    return "reward_rejected must have an element for each pair";
  }
  if (n == 0) return nullptr;
  return detail::reads_problem<R>(loss,
                                  !in.reference_chosen.empty() && !in.reference_rejected.empty(),
                                  !in.chosen_tokens.empty() && !in.rejected_tokens.empty());
}

template <storage S, class Loss>
const char* problem(const Loss& loss, const unpaired_batch<S>& in, const unpaired_outputs<S>& out,
                    const denominator& by) {
  using R = compute_t<S>;
  detail::must_be_unpaired<R, Loss>();
  const std::int64_t n = in.policy.size();
  if (const char* why = prospect::problem(loss)) return why;
  if (!by.valid()) return "normaliser needs a positive, finite count";
  if (!detail::option_fits(in.reference, n)) return "reference and policy differ in size";
  if (!detail::input_fits(in.desirable, n)) return "desirable and policy differ in size";
  if (!detail::option_fits(in.tokens, n)) return "tokens and policy differ in size";
  if (!detail::output_fits(out.loss, n)) return "loss must have an element for each completion";
  if (!detail::output_fits(out.d_policy, n)) {
    return "d_policy must have an element for each completion";
  }
  if (!detail::output_fits(out.reward, n)) return "reward must have an element for each completion";
  if (n == 0) return nullptr;
  return detail::reads_problem<R>(loss, !in.reference.empty(), !in.tokens.empty());
}

/// Of the point that `evaluate` is given.
inline const char* problem(const reference_point&) { return nullptr; }
inline const char* problem(const cross_class&) { return nullptr; }
inline const char* problem(const observed_point& point) {
  return point.mismatched == nullptr ? "observed_point.mismatched is null" : nullptr;
}
template <storage S>
const char* problem(const mismatched_batch<S>& batch) {
  if (!detail::input_fits(batch.reference, batch.policy.size())) {
    return "mismatched reference and policy differ in size";
  }
  if (!detail::option_fits(batch.tokens, batch.policy.size())) {
    return "mismatched tokens and policy differ in size";
  }
  return nullptr;
}

template <storage S>
const char* problem(const detail::point_source<S>& point) {
  switch (point.kind) {
    case detail::point_kind::observed:
      return problem(observed_point{point.observed});
    case detail::point_kind::mismatched:
      return problem(point.mismatched);
    default:
      return nullptr;
  }
}

}  // namespace prospect::inline v1::cuda
PROSPECT_STRICT_END
