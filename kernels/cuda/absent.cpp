// The C API on a device in a library that was built without CUDA: every function says so.
#include "../boundary.hpp"

/// One line for each function of prospect/c/cuda.h and cuda_head.h: its arguments but for the last
/// two, which all of them have.
#define PROSPECT_ON_DEVICE(name, ...)                                                  \
  prospect_status name(__VA_ARGS__, const prospect_context*, prospect_error* error) {  \
    return prospect::kernels::report(error, PROSPECT_UNSUPPORTED,                      \
                                     "prospect: this library was built without CUDA"); \
  }

PROSPECT_ON_DEVICE(prospect_pairs_cuda, const prospect_loss*, const prospect_pairs*,
                   prospect_device_metrics*)
PROSPECT_ON_DEVICE(prospect_completions_cuda, const prospect_loss*, const prospect_completions*,
                   prospect_device_metrics*)
PROSPECT_ON_DEVICE(prospect_mismatched_kl_cuda, prospect_row, prospect_row, prospect_row,
                   prospect_observation*)
PROSPECT_ON_DEVICE(prospect_aot_margins_cuda, const prospect_loss*, const prospect_pairs*,
                   prospect_row)
PROSPECT_ON_DEVICE(prospect_aot_pairs_cuda, const prospect_pairs*, prospect_row, prospect_row)
PROSPECT_ON_DEVICE(prospect_value_loss_cuda, const prospect_values*, prospect_device_metrics*)
PROSPECT_ON_DEVICE(prospect_token_losses_cuda, const prospect_loss*, const prospect_token_batch*,
                   prospect_device_metrics*)
PROSPECT_ON_DEVICE(prospect_token_log_probs_cuda, prospect_matrix, const prospect_tokens*,
                   const prospect_token_results*)
PROSPECT_ON_DEVICE(prospect_token_log_probs_and_gradient_cuda, prospect_matrix,
                   const prospect_tokens*, const prospect_token_results*)
PROSPECT_ON_DEVICE(prospect_logits_gradient_cuda, prospect_matrix, prospect_matrix,
                   const prospect_tokens*, const prospect_token_coefficients*)
PROSPECT_ON_DEVICE(prospect_scale_rows_cuda, prospect_matrix, prospect_row)
PROSPECT_ON_DEVICE(prospect_sequence_sums_cuda, const prospect_tokens*, prospect_row, prospect_row,
                   prospect_row)
PROSPECT_ON_DEVICE(prospect_spread_cuda, const prospect_tokens*, prospect_row, prospect_row)
PROSPECT_ON_DEVICE(prospect_reduced_sums_cuda, const prospect_tokens*,
                   const prospect_token_reducer*, prospect_row, prospect_row)
PROSPECT_ON_DEVICE(prospect_reduced_spread_cuda, const prospect_tokens*,
                   const prospect_token_reducer*, prospect_row, prospect_row)
PROSPECT_ON_DEVICE(prospect_public_tokens_cuda, prospect_row, prospect_row, prospect_row,
                   prospect_row)
PROSPECT_ON_DEVICE(prospect_wpo_weights_cuda, const prospect_tokens*, prospect_row, prospect_row,
                   prospect_row)
PROSPECT_ON_DEVICE(prospect_pair_weights_cuda, prospect_row, prospect_row, prospect_row,
                   prospect_row)
PROSPECT_ON_DEVICE(prospect_shift_targets_cuda, prospect_row, const prospect_layout*, prospect_row)
PROSPECT_ON_DEVICE(prospect_vocabulary_partials_cuda, prospect_matrix, const prospect_tokens*,
                   int32_t, prospect_partial*)
PROSPECT_ON_DEVICE(prospect_combine_partials_cuda, const prospect_partial*, int64_t,
                   const prospect_tokens*, const prospect_token_results*)
PROSPECT_ON_DEVICE(prospect_step_cuda, const prospect_step*, prospect_device_metrics*)
PROSPECT_ON_DEVICE(prospect_head_log_probs_cuda, const prospect_head_rows*,
                   const prospect_token_results*, int64_t*)
PROSPECT_ON_DEVICE(prospect_head_log_probs_and_gradient_cuda, const prospect_head_rows*,
                   const prospect_token_results*, prospect_matrix)
PROSPECT_ON_DEVICE(prospect_head_gradient_cuda, const prospect_head_rows*,
                   const prospect_token_coefficients*, const prospect_head_gradients*, int64_t)
PROSPECT_ON_DEVICE(prospect_head_vocabulary_partials_cuda, const prospect_head_rows*, int32_t,
                   prospect_partial*)
PROSPECT_ON_DEVICE(prospect_head_step_cuda, const prospect_device_head_step*)
