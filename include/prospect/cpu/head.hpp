// Phases 1 and 3 from hidden states: log-probabilities and gradients through the LM head, without
// ever holding the logits. Chunks of tokens meet tiles of the vocabulary; the products are a
// GEMM's, what happens to a row of logits is the token functions'. Needs Eigen, and is therefore
// not part of prospect.hpp.
//
// Matrix products per call, in units of tokens x hidden x vocabulary multiply-adds:
//
//   head_log_probs                 1
//   head_log_probs_and_gradient    2   frozen head: coefficients are applied afterwards
//   head_gradient                  3   trained head, after head_log_probs: 4 in all, or 4 - f where
//                                      a share f of the gradients was kept
//   head_step                      3   trained head in one go: for losses whose coefficients are
//                                      known as soon as the log-probs of a few sequences are
//
// A trained head whose weight's own gradient is not wanted takes one less. An adapter of the head
// adds rank / hidden of each, and twice rank / vocabulary.
//
// Tokens that are not scored take no part in any product. Every function throws
// std::invalid_argument, with the argument's name and before any work, for
//
//   - sizes that differ, a view that describes no memory (null, misaligned, negative, too large)
//   - a target outside the vocabulary
//   - a temperature or soft cap outside [1e-30, 1e30]
//   - a workspace that is too small for a few tokens: the message says how large it must be
#pragma once

#include <prospect/cpu/detail/head_schedules.hpp>
#include <prospect/cpu/gemm.hpp>
#include <prospect/cpu/head_workspace.hpp>
#include <prospect/head.hpp>

#include <concepts>
#include <cstdint>
#include <span>
#include <type_traits>
#include <vector>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cpu {

using prospect::head_gradients;
using prospect::head_options;
using prospect::lm_head;

inline namespace PROSPECT_CPU_ISA {

/// Log-probabilities of the target tokens from hidden states ([tokens, hidden]), as
/// `token_log_probs` gives them from logits. Results do not depend on the workspace.
///
/// @param out rows of [tokens], each of which may be left out.
/// @param keep_gradients whether `head_gradient` for the same tokens follows: as many tokens as the
///        workspace holds then need no second product with the head. Log-probs alone fit into a
///        smaller workspace than that.
/// @return what `head_gradient` asks for, whether gradients are kept or not.
template <storage S, gemm<compute_t<S>> Gemm = eigen_gemm, executor E = thread_pool>
head_ticket head_log_probs(matrix_view<const std::type_identity_t<S>> hidden,
                           const lm_head<S>& head, index_row targets,
                           const token_outputs<compute_t<S>>& out,
                           head_workspace<compute_t<S>>& workspace, bool keep_gradients = false,
                           const head_options& options = {}, const Gemm& multiply = {},
                           E& on = thread_pool::shared()) {
  return detail::with_pass<S>(
      hidden, head, targets, options, workspace, multiply, on, [&](auto& pass) {
        return detail::head_forward_pass(pass, out, workspace, hidden.rows, keep_gradients);
      });
}

/// The frozen head: log-probabilities, and in `d_hidden` ([tokens, hidden]) the gradient of each
/// token's log-prob by its hidden state, to be multiplied by the coefficients once they are known
/// (`scale_rows`): one for each token, since the gradient of an entropy is no multiple of it. Rows
/// that are not scored become 0. A head with an adapter is frozen with it: gradients of the adapter
/// are sums over tokens, which need the coefficients first (`head_gradient`, `head_step`).
template <storage S, gemm<compute_t<S>> Gemm = eigen_gemm, executor E = thread_pool>
void head_log_probs_and_gradient(matrix_view<const std::type_identity_t<S>> hidden,
                                 const lm_head<S>& head, index_row targets,
                                 const token_outputs<compute_t<S>>& out,
                                 matrix_view<std::type_identity_t<S>> d_hidden,
                                 head_workspace<compute_t<S>>& workspace,
                                 const head_options& options = {}, const Gemm& multiply = {},
                                 E& on = thread_pool::shared()) {
  detail::with_pass<S>(hidden, head, targets, options, workspace, multiply, on, [&](auto& pass) {
    if (hidden.rows > 0 && !detail::wanted(d_hidden)) detail::reject("d_hidden", "is missing");
    detail::check_gradient_of("d_hidden", d_hidden, hidden, "hidden", pass.batch().options());
    detail::head_frozen_pass(pass, out, d_hidden, workspace, hidden.rows);
  });
}

/// A trained head, backward: the gradient of the loss by hidden states, weight, bias and the
/// matrices of an adapter, as far as they are wanted, from one coefficient per token.
///
/// Hidden states, head, targets and options are those of the forward pass, and still hold what they
/// held; `log_prob` and `lse` ([tokens]) are what it gave. Logits are computed again, but for the
/// tokens whose gradients `workspace` still has for this ticket; it has used them up afterwards.
///
/// @param d_token [tokens], dL/dlogp. A token whose coefficient is 0 takes no part, whatever its
///        hidden state.
/// @param ticket what `head_log_probs` returned, or {}: everything is computed again.
/// @throws std::invalid_argument for a ticket of another pass ("is of other targets", ...).
template <storage S, gemm<compute_t<S>> Gemm = eigen_gemm, executor E = thread_pool>
void head_gradient(matrix_view<const std::type_identity_t<S>> hidden, const lm_head<S>& head,
                   index_row targets, strided_span<const compute_t<S>> log_prob,
                   strided_span<const double> lse, strided_span<const compute_t<S>> d_token,
                   const head_gradients<S>& gradients, const head_ticket& ticket,
                   head_workspace<compute_t<S>>& workspace, const head_options& options = {},
                   const Gemm& multiply = {}, E& on = thread_pool::shared()) {
  detail::with_pass<S>(hidden, head, targets, options, workspace, multiply, on, [&](auto& pass) {
    detail::require_row("d_token", d_token, hidden.rows);
    detail::head_backward_pass(pass, log_prob, lse, detail::loss_coefficients(d_token), gradients,
                               ticket, workspace);
  });
}

/// The same with two coefficients per token, or a third for its entropy; mind their sign
/// (`token_coefficients`). Kept gradients are those of log-probs: they serve tokens whose first two
/// coefficients are equal and whose entropy has none, the others are computed again.
template <storage S, gemm<compute_t<S>> Gemm = eigen_gemm, executor E = thread_pool>
void head_gradient(matrix_view<const std::type_identity_t<S>> hidden, const lm_head<S>& head,
                   index_row targets, strided_span<const compute_t<S>> log_prob,
                   strided_span<const double> lse,
                   const token_coefficients<compute_t<S>>& coefficients,
                   const head_gradients<S>& gradients, const head_ticket& ticket,
                   head_workspace<compute_t<S>>& workspace, const head_options& options = {},
                   const Gemm& multiply = {}, E& on = thread_pool::shared()) {
  detail::with_pass<S>(hidden, head, targets, options, workspace, multiply, on, [&](auto& pass) {
    detail::check_coefficients(coefficients, hidden.rows);
    detail::head_backward_pass(pass, log_prob, lse, {.rows = coefficients}, gradients, ticket,
                               workspace);
  });
}

/// A trained head in one go, for losses whose coefficients are known as soon as the log-probs of a
/// few sequences are: a KL reference point given beforehand, a normaliser that is a number.
///
/// Goes through the batch in chunks of whole sequences, `group` of them at a time (2 for pairs that
/// stand next to each other): once the chunk's results are in `out`, which must take log_prob and
/// lse, `ready(first, last)` is called and writes what stands in `d_token` for the tokens of
/// sequences [first, last); then the chunk's gradients follow, its logits still in memory. Tokens
/// that belong to no sequence (`sequence_layout::ranges`) are not scored.
///
/// @throws std::invalid_argument also for a layout that does not describe the rows, or a `group`
///         that does not divide the number of sequences.
template <storage S, class Ready, gemm<compute_t<S>> Gemm = eigen_gemm, executor E = thread_pool>
  requires std::invocable<const Ready&, std::int64_t, std::int64_t>
void head_step(matrix_view<const std::type_identity_t<S>> hidden, const lm_head<S>& head,
               index_row targets, const sequence_layout& layout, std::int64_t group,
               const token_outputs<compute_t<S>>& out, const Ready& ready,
               strided_span<const compute_t<S>> d_token, const head_gradients<S>& gradients,
               head_workspace<compute_t<S>>& workspace, const head_options& options = {},
               const Gemm& multiply = {}, E& on = thread_pool::shared()) {
  detail::with_pass<S>(hidden, head, targets, options, workspace, multiply, on, [&](auto& pass) {
    detail::require_row("d_token", d_token, hidden.rows);
    detail::head_one_pass(pass, layout, group, out, ready, detail::loss_coefficients(d_token),
                          gradients, workspace);
  });
}

/// The same with two coefficients per token, or a third for its entropy: `ready` writes what stands
/// in their rows. `coefficients.entropy` is the row that `out.entropy` is.
template <storage S, class Ready, gemm<compute_t<S>> Gemm = eigen_gemm, executor E = thread_pool>
  requires std::invocable<const Ready&, std::int64_t, std::int64_t>
void head_step(matrix_view<const std::type_identity_t<S>> hidden, const lm_head<S>& head,
               index_row targets, const sequence_layout& layout, std::int64_t group,
               const token_outputs<compute_t<S>>& out, const Ready& ready,
               const token_coefficients<compute_t<S>>& coefficients,
               const head_gradients<S>& gradients, head_workspace<compute_t<S>>& workspace,
               const head_options& options = {}, const Gemm& multiply = {},
               E& on = thread_pool::shared()) {
  detail::with_pass<S>(hidden, head, targets, options, workspace, multiply, on, [&](auto& pass) {
    detail::check_coefficients(coefficients, hidden.rows);
    const auto& entropy = coefficients.entropy;
    if (!entropy.empty() &&
        (entropy.data() != out.entropy.data() || entropy.stride() != out.entropy.stride())) {
      detail::reject("coefficients.entropy", "must be the row that out.entropy is");
    }
    detail::head_one_pass(pass, layout, group, out, ready, {.rows = coefficients}, gradients,
                          workspace);
  });
}

}  // namespace PROSPECT_CPU_ISA
}  // namespace prospect::inline v2::cpu
PROSPECT_STRICT_END
