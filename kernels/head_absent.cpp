// The head path of the C API in a library that was built without Eigen: every function says so.
#include "boundary.hpp"

#define PROSPECT_WITHOUT_EIGEN(name, ...)                                               \
  prospect_status name(__VA_ARGS__, const prospect_context*, prospect_error* error) {   \
    return prospect::kernels::report(error, PROSPECT_UNSUPPORTED,                       \
                                     "prospect: this library was built without Eigen"); \
  }

PROSPECT_WITHOUT_EIGEN(prospect_head_log_probs_cpu, prospect_matrix, const prospect_head*,
                       const prospect_tokens*, const prospect_token_results*, prospect_head_ticket*,
                       int32_t, prospect_head_workspace*)
PROSPECT_WITHOUT_EIGEN(prospect_head_log_probs_and_gradient_cpu, prospect_matrix,
                       const prospect_head*, const prospect_tokens*, const prospect_token_results*,
                       prospect_matrix, prospect_head_workspace*)
PROSPECT_WITHOUT_EIGEN(prospect_head_gradient_cpu, prospect_matrix, const prospect_head*,
                       const prospect_tokens*, const prospect_token_coefficients*,
                       const prospect_head_gradients*, const prospect_head_ticket*,
                       prospect_head_workspace*)
PROSPECT_WITHOUT_EIGEN(prospect_head_step_cpu, const prospect_head_step*)
