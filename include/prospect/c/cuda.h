/* The same on a CUDA device.
 *
 * Every row, matrix and pointer to a count points to device memory; structs lie on the host. Calls
 * put their work on context->stream and return: nothing is allocated, waited for or read back, so
 * that they can be captured in a graph. What the host cannot see is safe: a target outside the
 * vocabulary makes its row NaN.
 *
 * A CUDA error is PROSPECT_CUDA_ERROR plus its code. A library built without CUDA answers
 * PROSPECT_UNSUPPORTED. Executors have no meaning here and must be NULL. Logits are F32, F16 or
 * BF16; whatever goes with them is float where the CPU's would be. */
#ifndef PROSPECT_C_CUDA_H
#define PROSPECT_C_CUDA_H

#include <prospect/c/step.h>
#include <prospect/c/token_losses.h>
#include <prospect/c/values.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Device memory for the metrics of a call. Copied to the host, prospect_read_metrics names them. */
typedef struct prospect_device_metrics {
  double opaque[128];
} prospect_device_metrics;
PROSPECT_API prospect_status prospect_read_metrics(const prospect_loss* loss,
                                                   const prospect_device_metrics* copied,
                                                   prospect_metrics* metrics,
                                                   prospect_error* error);

/* The same of what prospect_value_loss_cuda wrote. */
PROSPECT_API prospect_status prospect_read_value_metrics(const prospect_device_metrics* copied,
                                                         prospect_metrics* metrics,
                                                         prospect_error* error);

/* `metrics` may be NULL. */
PROSPECT_API prospect_status prospect_pairs_cuda(const prospect_loss* loss,
                                                 const prospect_pairs* pairs,
                                                 prospect_device_metrics* metrics,
                                                 const prospect_context* context,
                                                 prospect_error* error);
PROSPECT_API prospect_status prospect_completions_cuda(const prospect_loss* loss,
                                                       const prospect_completions* completions,
                                                       prospect_device_metrics* metrics,
                                                       const prospect_context* context,
                                                       prospect_error* error);
/* `observed` is on the device: all-reduce it there, and give it to PROSPECT_OBSERVED. */
PROSPECT_API prospect_status prospect_mismatched_kl_cuda(
    prospect_row policy, prospect_row reference, prospect_row tokens,
    prospect_observation* observed, const prospect_context* context, prospect_error* error);
PROSPECT_API prospect_status prospect_aot_margins_cuda(const prospect_loss* loss,
                                                       const prospect_pairs* pairs,
                                                       prospect_row margin,
                                                       const prospect_context* context,
                                                       prospect_error* error);
PROSPECT_API prospect_status prospect_aot_pairs_cuda(const prospect_pairs* pairs,
                                                     prospect_row chosen, prospect_row rejected,
                                                     const prospect_context* context,
                                                     prospect_error* error);
PROSPECT_API prospect_status prospect_value_loss_cuda(const prospect_values* values,
                                                      prospect_device_metrics* metrics,
                                                      const prospect_context* context,
                                                      prospect_error* error);

/* `metrics` may be NULL. */
PROSPECT_API prospect_status prospect_token_losses_cuda(const prospect_loss* loss,
                                                        const prospect_token_batch* batch,
                                                        prospect_device_metrics* metrics,
                                                        const prospect_context* context,
                                                        prospect_error* error);

PROSPECT_API prospect_status prospect_token_log_probs_cuda(prospect_matrix logits,
                                                           const prospect_tokens* tokens,
                                                           const prospect_token_results* results,
                                                           const prospect_context* context,
                                                           prospect_error* error);
PROSPECT_API prospect_status prospect_token_log_probs_and_gradient_cuda(
    prospect_matrix logits, const prospect_tokens* tokens, const prospect_token_results* results,
    const prospect_context* context, prospect_error* error);
PROSPECT_API prospect_status prospect_logits_gradient_cuda(
    prospect_matrix logits, prospect_matrix gradient, const prospect_tokens* tokens,
    const prospect_token_coefficients* coefficients, const prospect_context* context,
    prospect_error* error);
PROSPECT_API prospect_status prospect_scale_rows_cuda(prospect_matrix matrix, prospect_row factors,
                                                      const prospect_context* context,
                                                      prospect_error* error);
PROSPECT_API prospect_status prospect_sequence_sums_cuda(const prospect_tokens* tokens,
                                                         prospect_row token_log_prob,
                                                         prospect_row log_prob, prospect_row counts,
                                                         const prospect_context* context,
                                                         prospect_error* error);
PROSPECT_API prospect_status prospect_spread_cuda(const prospect_tokens* tokens,
                                                  prospect_row d_sequence, prospect_row d_token,
                                                  const prospect_context* context,
                                                  prospect_error* error);
PROSPECT_API prospect_status prospect_reduced_sums_cuda(const prospect_tokens* tokens,
                                                        const prospect_token_reducer* reducer,
                                                        prospect_row log_prob, prospect_row counts,
                                                        const prospect_context* context,
                                                        prospect_error* error);
PROSPECT_API prospect_status prospect_reduced_spread_cuda(
    const prospect_tokens* tokens, const prospect_token_reducer* reducer, prospect_row d_sequence,
    prospect_row d_token, const prospect_context* context, prospect_error* error);
PROSPECT_API prospect_status prospect_public_tokens_cuda(prospect_row counts, prospect_row chosen,
                                                         prospect_row rejected,
                                                         prospect_row public_tokens,
                                                         const prospect_context* context,
                                                         prospect_error* error);
PROSPECT_API prospect_status prospect_wpo_weights_cuda(
    const prospect_tokens* tokens, prospect_row token_log_prob, prospect_row sum_squares,
    prospect_row weight, const prospect_context* context, prospect_error* error);
PROSPECT_API prospect_status prospect_pair_weights_cuda(prospect_row weight, prospect_row chosen,
                                                        prospect_row rejected,
                                                        prospect_row pair_weight,
                                                        const prospect_context* context,
                                                        prospect_error* error);
PROSPECT_API prospect_status prospect_shift_targets_cuda(prospect_row labels,
                                                         const prospect_layout* layout,
                                                         prospect_row targets,
                                                         const prospect_context* context,
                                                         prospect_error* error);
PROSPECT_API prospect_status prospect_vocabulary_partials_cuda(
    prospect_matrix logits, const prospect_tokens* tokens, int32_t statistics,
    prospect_partial* partials, const prospect_context* context, prospect_error* error);
PROSPECT_API prospect_status prospect_combine_partials_cuda(
    const prospect_partial* partials, int64_t parts, const prospect_tokens* tokens,
    const prospect_token_results* results, const prospect_context* context, prospect_error* error);

PROSPECT_API prospect_status prospect_step_cuda(const prospect_step* step,
                                                prospect_device_metrics* metrics,
                                                const prospect_context* context,
                                                prospect_error* error);

#ifdef __cplusplus
}
#endif

#endif
