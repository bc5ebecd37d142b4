/* Losses of tokens: supervised fine-tuning and the policy-gradient relatives of preference losses,
 * from log-probabilities of tokens. */
#ifndef PROSPECT_C_TOKEN_LOSSES_H
#define PROSPECT_C_TOKEN_LOSSES_H

#include <prospect/c/sequences.h>
#include <prospect/c/tokens.h>

#ifdef __cplusplus
extern "C" {
#endif

/* n tokens of the sequences that `layout` tells apart. Rows of real numbers may each be of another
 * type, and are of n elements unless said otherwise; see prospect/token_batch.hpp. */
typedef struct prospect_token_batch {
  size_t struct_size;
  int32_t normaliser;     /* prospect_normaliser; what it counts is for the loss to say */
  int32_t reserved;       /* 0 */
  double count;           /* for PROSPECT_OVER */
  const double* count_at; /* for PROSPECT_OVER_AT */
  double entropy_coef;    /* times the mean entropy, which is subtracted; 0: no bonus */
  const prospect_layout* layout;
  /* Read: */
  prospect_row policy;          /* real, nats */
  prospect_row old_policy;      /* real; not given: the policy itself, detached */
  prospect_row reference;       /* real */
  prospect_row advantage;       /* real; one a sequence. Either this ... */
  prospect_row token_advantage; /* real; ... or this */
  prospect_row weight;          /* real; not given: 1 */
  prospect_row entropy;         /* real, nats; for the bonus, or for its mean among the metrics */
  prospect_row targets;         /* index; -100 = not scored */
  prospect_row mask;            /* U8, BOOL, I32 or F32; 0 = not scored */
  /* Written: */
  prospect_row loss;      /* real; times its weight, unreduced */
  prospect_row d_policy;  /* real; dL/dlogp after averaging and normaliser */
  prospect_row d_entropy; /* real; dL/dentropy likewise */
} prospect_token_batch;

/* `metrics` may be NULL. Inputs are checked before anything is written. */
PROSPECT_API prospect_status prospect_token_losses_cpu(const prospect_loss* loss,
                                                       const prospect_token_batch* batch,
                                                       prospect_metrics* metrics,
                                                       const prospect_context* context,
                                                       prospect_error* error);

#ifdef __cplusplus
}
#endif

#endif
