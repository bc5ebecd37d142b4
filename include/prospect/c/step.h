/* Phases 1 to 3 in one call, for who has logits and wants their gradient in their place. */
#ifndef PROSPECT_C_STEP_H
#define PROSPECT_C_STEP_H

#include <prospect/c/sequences.h>
#include <prospect/c/tokens.h>

#ifdef __cplusplus
extern "C" {
#endif

/* One step: token log-probs, what they add up to over sequences, the loss, its coefficients back to
 * the tokens, and from there into the logits.
 *
 * What else is known of the batch stands in `pairs` or `completions`, as the loss takes it, but for
 * the rows that come from the logits: policy rows and token counts must not be given there. Outputs
 * may be asked for there as anywhere else, but for `pairs->d_policy`.
 *
 * Pairs are sequences of the layout. Their reference is `pairs->reference`, one element for each
 * sequence. `pairs->chosen` and `pairs->rejected` say which two are a pair, and one sequence may be
 * in several; where they are not given, chosen sequences are the first half, rejected ones the
 * second. `pairs->third` may name a third one of each pair beside those two: see prospect_pairs.
 *
 * A reducer takes its log-probs from the logits: they must not be given. With a reference of tokens
 * the sequences' own is a row of 0. */
typedef struct prospect_step {
  size_t struct_size;
  prospect_matrix logits;        /* becomes dL/dlogits */
  const prospect_tokens* tokens; /* with a layout */
  const prospect_loss* loss;
  const prospect_pairs* pairs;
  const prospect_completions* completions;
  /* Written, if wanted: */
  prospect_row token_log_prob; /* one a row of logits, of the type of prospect_token_results */
  prospect_row log_prob;       /* double; one a sequence */
  prospect_row counts;         /* count; one a sequence */
  prospect_row d_sequence;     /* double; one a sequence: dL/dP */
  /* Read: */
  const prospect_token_reducer* reducer; /* NULL: sequences are the sums of their tokens */
} prospect_step;

/* Takes scratch memory: see prospect_context. */
PROSPECT_API prospect_status prospect_step_cpu(const prospect_step* step, prospect_metrics* metrics,
                                               const prospect_context* context,
                                               prospect_error* error);

#ifdef __cplusplus
}
#endif

#endif
