/* The head path on a CUDA device: log-probabilities and gradients from hidden states through the
 * last layer of a model, without ever holding the logits. See prospect/cuda/head.cuh for what each
 * schedule costs, and prospect/c/cuda.h for what holds of all functions on a device.
 *
 * Its matrix products are the caller's (`prospect_gemm`): this library links none.
 * prospect/c/cublaslt.h has cuBLASLt's, in a library of its own.
 *
 * How many tokens are scored only the device knows: the host states `scored_at_most`, and that many
 * are worked on. More than that make every output NaN, and `scored` says how many there were.
 *
 * Calls work in as much of context->scratch as is of use to them: the more, the larger the chunks,
 * and log-probs are the same bits whatever it is. A `query` answers what is of use; less is refused
 * only where it is too little for a few tokens, with the size that is enough.
 * prospect_head_step_cuda takes what its query answers. */
#ifndef PROSPECT_C_CUDA_HEAD_H
#define PROSPECT_C_CUDA_HEAD_H

#include <prospect/c/head.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Matrix products ------------------------------------------------------------------------- */

/* One side of a product: a row-major matrix as it lies, or its transpose. */
typedef struct prospect_gemm_operand {
  prospect_matrix matrix; /* read */
  int32_t transposed;     /* not 0: the transpose is meant */
  int32_t reserved;
} prospect_gemm_operand;

/* Which size of a product is a number of tokens, and may differ from call to call. */
typedef int32_t prospect_gemm_tokens;
enum {
  PROSPECT_GEMM_ROWS = 0, /* the rows of a and c */
  PROSPECT_GEMM_INNER = 1 /* what is summed over */
};

/* c = alpha a b + beta c + bias. a and b are F32, F16 or BF16, both the same; sums and c are F32
 * always. All pointers are to the device. */
typedef struct prospect_gemm_product {
  size_t struct_size;
  prospect_gemm_operand a, b; /* [m, k] and [k, n] once they are transposed */
  prospect_matrix c;          /* [m, n], written */
  const float* alpha;         /* one number */
  const float* beta;          /* one number, 0 or 1; c is not to be read where it is 0 */
  const float* bias;          /* [n], added to every row; NULL: none */
  prospect_gemm_tokens tokens;
  int32_t reserved;
} prospect_gemm_product;

/* multiply(context, product, stream) puts a product on the stream and returns without waiting; the
 * product is the callee's to read until then. It may not allocate on the device, so that a call can
 * be captured. Any status but PROSPECT_OK ends the call of ours, which answers it; a CUDA error is
 * PROSPECT_CUDA_ERROR plus its code.
 *
 * Where the number of tokens is that of the rows, an element of c must be the same bits whatever
 * the other rows are and however many: what makes log-probs independent of the memory they are
 * computed in. So an algorithm is chosen from all other sizes and types, and does not divide the
 * inner size over blocks. */
typedef struct prospect_gemm {
  void* context;
  prospect_status (*multiply)(void* context, const prospect_gemm_product* product,
                              struct CUstream_st* stream);
} prospect_gemm;

/* ---- The head path --------------------------------------------------------------------------- */

/* Tokens and the head they go through: filled in once and given to every call on them. */
typedef struct prospect_head_rows {
  size_t struct_size;
  prospect_matrix hidden;        /* [tokens, hidden]; F32, F16 or BF16 */
  const prospect_head* head;     /* of the same dtype */
  const prospect_tokens* tokens; /* one element for each row of `hidden` */
  int64_t scored_at_most;        /* the host's word, at most the number of rows */
  int64_t* scored; /* on the device: becomes how many tokens were scored; NULL: not asked for */
  prospect_gemm gemm;
} prospect_head_rows;

/* The log-probs, as prospect_token_log_probs_cuda gives them from logits. 1 product.
 *
 * With `kept` (on the host) not NULL, prospect_head_gradient_cuda for the same rows follows, in the
 * same scratch: gradients of as many tokens as it holds stay there, and *kept becomes how many, at
 * once. */
PROSPECT_API prospect_status prospect_head_log_probs_cuda(const prospect_head_rows* rows,
                                                          const prospect_token_results* results,
                                                          int64_t* kept,
                                                          const prospect_context* context,
                                                          prospect_error* error);

/* The frozen head: the same, and in `d_hidden`, which is as `hidden` and not itself, the gradient
 * of each token's log-prob by its hidden state, for prospect_scale_rows_cuda. 2 products. */
PROSPECT_API prospect_status prospect_head_log_probs_and_gradient_cuda(
    const prospect_head_rows* rows, const prospect_token_results* results, prospect_matrix d_hidden,
    const prospect_context* context, prospect_error* error);

/* A trained head, backward: 3 products, or 2 for the tokens whose gradients were kept. `kept` is
 * what the forward pass of the same rows wrote, where nothing else has used the scratch in between;
 * 0: everything is computed again, as it is with coefficients of more than one row, which what was
 * kept does not serve. With a part of the vocabulary, tokens->first_token and tokens->vocabulary
 * say which; log_prob and lse are then those of the whole, and the gradient of the hidden states is
 * this part's share. */
PROSPECT_API prospect_status prospect_head_gradient_cuda(
    const prospect_head_rows* rows, const prospect_token_coefficients* coefficients,
    const prospect_head_gradients* gradients, int64_t kept, const prospect_context* context,
    prospect_error* error);

/* What a part of the vocabulary contributes, where the rows of head.weight are tokens first_token,
 * first_token + 1, ... of tokens->vocabulary: for prospect_combine_partials_cuda once those of all
 * parts are gathered. `partials` has an element for each row. `statistics`: whether any but
 * log_prob and lse will be asked for. 1 product. */
PROSPECT_API prospect_status prospect_head_vocabulary_partials_cuda(const prospect_head_rows* rows,
                                                                    int32_t statistics,
                                                                    prospect_partial* partials,
                                                                    const prospect_context* context,
                                                                    prospect_error* error);

/* Called on the host, within the call, for sequences [first, last): puts on the stream, where their
 * log-probs will be in the results by then, what writes their tokens' coefficients. Any status but
 * PROSPECT_OK ends the call, which answers it. */
typedef struct prospect_device_head_ready {
  void* context;
  prospect_status (*ready)(void* context, int64_t first, int64_t last, struct CUstream_st* stream);
} prospect_device_head_ready;

/* A trained head in one go, 3 products, for losses whose coefficients are known as soon as the
 * log-probs of a few sequences are: `group` sequences of the layout at a time (a multiple of 2 for
 * pairs that stand next to each other). rows->scored_at_most is that of one step, and *rows->scored
 * becomes the most that one had. Tokens of no sequence are not scored. */
typedef struct prospect_device_head_step {
  size_t struct_size;
  const prospect_head_rows* rows; /* whose tokens have a layout */
  int64_t group;
  const prospect_token_results* results; /* log_prob and lse must be wanted */
  prospect_device_head_ready ready;
  /* What `ready` writes; log_prob and lse are those of `results` and must not be given, entropy, if
   * it is, must be the row of `results`. */
  const prospect_token_coefficients* coefficients;
  const prospect_head_gradients* gradients;
} prospect_device_head_step;
PROSPECT_API prospect_status prospect_head_step_cuda(const prospect_device_head_step* step,
                                                     const prospect_context* context,
                                                     prospect_error* error);

#ifdef __cplusplus
}
#endif

#endif
