/* Phases 1 and 3 from hidden states: log-probabilities and gradients through the last layer of a
 * model, without ever holding the logits. See prospect/cpu/head.hpp for what each schedule costs.
 *
 * A library that was built without Eigen answers PROSPECT_UNSUPPORTED. */
#ifndef PROSPECT_C_HEAD_H
#define PROSPECT_C_HEAD_H

#include <prospect/c/tokens.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A low-rank adapter (LoRA): the weight is weight + scale b a, which is never formed. Both matrices
 * or, {0}, neither. */
typedef struct prospect_lora {
  prospect_matrix a; /* [rank, hidden] */
  prospect_matrix b; /* [vocabulary, rank] */
  double scale;      /* alpha / rank as a rule; not 0 where the matrices are given */
} prospect_lora;

/* The last layer: logits = hidden (weight + lora)^T + bias. All of the dtype of the hidden states,
 * which is any of the four floating-point types. */
typedef struct prospect_head {
  size_t struct_size;
  prospect_matrix weight; /* [vocabulary, hidden] */
  prospect_row bias;      /* [vocabulary], or not given */
  prospect_lora lora;
} prospect_head;

/* What a backward pass writes; {0} is not wanted, and not computed. All but `hidden` are double for
 * PROSPECT_F64 hidden states and float otherwise. */
typedef struct prospect_head_gradients {
  size_t struct_size;
  prospect_matrix hidden; /* [tokens, hidden], of the dtype of the hidden states, not themselves */
  prospect_matrix weight; /* [vocabulary, hidden] */
  prospect_row bias;      /* [vocabulary] */
  prospect_matrix lora_a; /* [rank, hidden] */
  prospect_matrix lora_b; /* [vocabulary, rank] */
  int32_t accumulate;     /* not 0: all but `hidden` are added to instead of overwritten */
  int32_t reserved;       /* 0 */
} prospect_head_gradients;

/* Memory for the head path on the host: allocated at its first use, at most `bytes`, and kept from
 * call to call. One call at a time. One that is too small for a few tokens is refused by the call
 * it is given to, with the size that is enough. */
typedef struct prospect_head_workspace prospect_head_workspace;
PROSPECT_API prospect_status prospect_head_workspace_create(int64_t bytes,
                                                            prospect_head_workspace** workspace,
                                                            prospect_error* error);
/* Tickets may outlive it. NULL is none. */
PROSPECT_API void prospect_head_workspace_destroy(prospect_head_workspace* workspace);

/* Says which forward pass a backward pass follows: prospect_head_log_probs_cpu writes it, and
 * prospect_head_gradient_cpu refuses it with anything but the hidden states, head and tokens of
 * that pass. It may be used any number of times, and written again. */
typedef struct prospect_head_ticket prospect_head_ticket;
PROSPECT_API prospect_status prospect_head_ticket_create(prospect_head_ticket** ticket,
                                                         prospect_error* error);
PROSPECT_API void prospect_head_ticket_destroy(prospect_head_ticket* ticket); /* NULL is none */
/* How many tokens' gradients the workspace of its pass still has; 0 for NULL. */
PROSPECT_API int64_t prospect_head_ticket_kept(const prospect_head_ticket* ticket);

/* In all of them `hidden` is [tokens, hidden], and `tokens` has one element for each of its rows;
 * first_token is 0, and vocabulary 0 or that of the head. Tokens that are not scored take no part
 * in any product, and zero_padding is about the rows of all gradients that are matrices. */

/* The log-probs, as prospect_token_log_probs_cpu gives them from logits. `ticket` may be NULL where
 * no gradient follows; with `keep_gradients` not 0, as many tokens as the workspace holds need no
 * second product with the head when it does. */
PROSPECT_API prospect_status prospect_head_log_probs_cpu(
    prospect_matrix hidden, const prospect_head* head, const prospect_tokens* tokens,
    const prospect_token_results* results, prospect_head_ticket* ticket, int32_t keep_gradients,
    prospect_head_workspace* workspace, const prospect_context* context, prospect_error* error);
/* The frozen head: the same, and in `d_hidden`, which is as `hidden`, the gradient of each token's
 * log-prob by its hidden state, for prospect_scale_rows_cpu. A head with an adapter is frozen with
 * it. */
PROSPECT_API prospect_status prospect_head_log_probs_and_gradient_cpu(
    prospect_matrix hidden, const prospect_head* head, const prospect_tokens* tokens,
    const prospect_token_results* results, prospect_matrix d_hidden,
    prospect_head_workspace* workspace, const prospect_context* context, prospect_error* error);
/* A trained head, backward. What it is given is what the forward pass was; `ticket` may be NULL:
 * everything is computed again, and nothing can be checked. */
PROSPECT_API prospect_status prospect_head_gradient_cpu(
    prospect_matrix hidden, const prospect_head* head, const prospect_tokens* tokens,
    const prospect_token_coefficients* coefficients, const prospect_head_gradients* gradients,
    const prospect_head_ticket* ticket, prospect_head_workspace* workspace,
    const prospect_context* context, prospect_error* error);

/* Called on the thread of the call, with the log-probs of sequences [first, last) in its results:
 * to write their tokens' coefficients. Any status but PROSPECT_OK ends the call, which answers it;
 * what is written by then stays. */
typedef struct prospect_head_ready {
  void* context;
  prospect_status (*ready)(void* context, int64_t first, int64_t last);
} prospect_head_ready;

/* A trained head in one go, for losses whose coefficients are known as soon as the log-probs of a
 * few sequences are. It goes through the batch in chunks of whole sequences of the layout, `group`
 * of them at a time (2 for pairs that stand next to each other). */
typedef struct prospect_head_step {
  size_t struct_size;
  prospect_matrix hidden;
  const prospect_head* head;
  const prospect_tokens* tokens; /* with a layout */
  int64_t group;
  const prospect_token_results* results; /* log_prob and lse must be wanted */
  prospect_head_ready ready;
  /* Read once `ready` has returned; log_prob and lse are those of `results` and must not be given,
   * entropy, if it is, must be the row of `results`. */
  const prospect_token_coefficients* coefficients;
  const prospect_head_gradients* gradients;
  prospect_head_workspace* workspace;
} prospect_head_step;
PROSPECT_API prospect_status prospect_head_step_cpu(const prospect_head_step* step,
                                                    const prospect_context* context,
                                                    prospect_error* error);

#ifdef __cplusplus
}
#endif

#endif
