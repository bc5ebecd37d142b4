/* Phase 2: losses and coefficients from summed log-probabilities; KTO's reference point and class
 * weights. */
#ifndef PROSPECT_C_SEQUENCES_H
#define PROSPECT_C_SEQUENCES_H

#include <prospect/c/losses.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What the summed loss is divided by before its gradient is handed out. Weights never enter it.
 * A next-token term (of cpo, orpo, rpo, mpo, tpo, ...) is divided by tokens: PROSPECT_MEAN counts
 * them, PROSPECT_SUM divides by nothing, and PROSPECT_OVER needs a `token_count` too. */
typedef int32_t prospect_normaliser;
enum {
  PROSPECT_MEAN = 0,   /* the number of counted examples of this call */
  PROSPECT_SUM = 1,    /* nothing */
  PROSPECT_OVER = 2,   /* `count`, e.g. a global count over ranks and micro-batches */
  PROSPECT_OVER_AT = 3 /* `*count_at`: read when the work is done, on the device for _cuda */
};

/* What mismatched rows showed of the KL divergence: the sum of their log-ratios and their number,
 * which ranks and micro-batches add up, and beside it the scored rows that were left out because
 * they are not finite, and the first of them (or -1). */
typedef struct prospect_observation {
  double sum;
  double count;
  double nonfinite;
  int64_t first_nonfinite;
} prospect_observation;

/* n pairs, as rows of n elements for each side, or as rows of any number of sequences of which
 * `chosen` and `rejected` name two for each pair. Rows of real numbers may each be of another type;
 * see prospect/batch.hpp. */
typedef struct prospect_pairs {
  size_t struct_size;
  int32_t normaliser;     /* prospect_normaliser */
  int32_t reserved;       /* 0 */
  double count;           /* for PROSPECT_OVER */
  const double* count_at; /* for PROSPECT_OVER_AT */
  /* Read. Either a row for each side ... */
  prospect_row policy_chosen, policy_rejected;       /* real */
  prospect_row reference_chosen, reference_rejected; /* real */
  prospect_row chosen_tokens, rejected_tokens;       /* count */
  /* ... or rows of sequences, and for each pair the positions of its two. */
  prospect_row policy, reference; /* real */
  prospect_row tokens;            /* count */
  prospect_row chosen, rejected;  /* index */
  /* In either case one element for each pair: */
  prospect_row weight; /* real; not given: 1 */
  prospect_row margin; /* real, nats; not given: 0 */
  /* Written, one element for each pair: */
  prospect_row loss;                               /* real; unreduced */
  prospect_row d_policy_chosen, d_policy_rejected; /* real; dL/dP after the normaliser */
  prospect_row reward_chosen, reward_rejected;     /* real; beta x log-ratio */
  /* Written, one element for each sequence, where no sequence is in two pairs: */
  prospect_row d_policy; /* real; 0 for a sequence that is in no pair */
  /* What next-token terms are divided by: the number of their tokens in all counted pairs, over
   * ranks and micro-batches. At most one of the two; 0 and NULL: as the normaliser says. */
  double token_count;
  const double* token_count_at; /* read when the work is done, on the device for _cuda */
  /* A third completion of each pair, for the losses that have one: TPO's gold completion, or the
   * prompt of the chosen one for orpo, which may be left out. */
  prospect_row policy_third; /* real */
  prospect_row third_tokens; /* count */
  prospect_row third;        /* index; among sequences, in place of the two above */
  /* Written: */
  prospect_row d_policy_third; /* real */
} prospect_pairs;

typedef int32_t prospect_reference;
enum {
  PROSPECT_GIVEN_POINT = 0,  /* `z`, `z_raw` */
  PROSPECT_CROSS_CLASS = 1,  /* HALOs' SimpleKTO: the other class's mean, attached; z is ignored */
  PROSPECT_OBSERVED = 2,     /* the clamped mean of `*observed`, e.g. after an all-reduce */
  PROSPECT_BATCH_MEAN = 3,   /* that of the mismatched rows below */
  PROSPECT_MEAN_OBSERVED = 4 /* the mean of `*observed` as it is: BCO's */
};

/* n completions with binary feedback. */
typedef struct prospect_completions {
  size_t struct_size;
  int32_t normaliser;
  int32_t reference_point;              /* prospect_reference */
  double count;                         /* for PROSPECT_OVER */
  const double* count_at;               /* for PROSPECT_OVER_AT */
  double z, z_raw;                      /* nats; z_raw is only reported */
  const prospect_observation* observed; /* for _OBSERVED, _MEAN_OBSERVED; on the device for _cuda */
  prospect_row policy, reference;       /* real */
  prospect_row desirable;               /* flag: 0 = thumb down */
  prospect_row tokens;                  /* count */
  prospect_row weight;                  /* real; not given: 1 */
  /* For PROSPECT_BATCH_MEAN, rows of any size of their own. They must be given: a batch of one
   * sequence, which has no mismatched row, gives one whose token count is 0, and z is 0. */
  prospect_row mismatched_policy, mismatched_reference; /* real */
  prospect_row mismatched_tokens;                       /* count; may be left out */
  /* Written: */
  prospect_row loss, d_policy, reward; /* real */
  prospect_observation* seen; /* what the mismatched rows showed; on the device for _cuda */
  /* Read: */
  prospect_row target; /* real; for losses that regress on one (a2po), and only for those */
} prospect_completions;

/* `metrics` may be NULL. Inputs are checked before anything is written. */
PROSPECT_API prospect_status prospect_pairs_cpu(const prospect_loss* loss,
                                                const prospect_pairs* pairs,
                                                prospect_metrics* metrics,
                                                const prospect_context* context,
                                                prospect_error* error);
PROSPECT_API prospect_status prospect_completions_cpu(const prospect_loss* loss,
                                                      const prospect_completions* completions,
                                                      prospect_metrics* metrics,
                                                      const prospect_context* context,
                                                      prospect_error* error);

/* ---- AOT (arXiv:2406.05882): a batch prepared by sorting, see prospect/cpu/aot.hpp
 * ---------------
 */

/* Writes `margin` (real, one element for each pair): given as `pairs->margin` to
 * prospect_pairs_cpu, it makes of `loss`, which must be of the margin of summed log-ratios, TRL's
 * aot. Sides are rows of their own. Scratch is taken where context->scratch is given, else
 * allocated. */
PROSPECT_API prospect_status prospect_aot_margins_cpu(const prospect_loss* loss,
                                                      const prospect_pairs* pairs,
                                                      prospect_row margin,
                                                      const prospect_context* context,
                                                      prospect_error* error);
/* Writes which sequences meet each other (index, one element for each pair, of one type): given as
 * `pairs->chosen` and `pairs->rejected`, they make of a loss of the margin TRL's aot_unpaired. */
PROSPECT_API prospect_status prospect_aot_pairs_cpu(const prospect_pairs* pairs,
                                                    prospect_row chosen, prospect_row rejected,
                                                    const prospect_context* context,
                                                    prospect_error* error);

/* ---- KTO's reference point and class weights ---------------------------------------------------
 */

typedef struct prospect_reference_point {
  double z;   /* max(0, raw), nats; of a running mean raw itself */
  double raw; /* before clamping */
} prospect_reference_point;

/* The row whose completion goes with row i's prompt: a rotation by one; -1 for fewer than 2 rows.
 */
PROSPECT_API int64_t prospect_mismatched_row(int64_t i, int64_t rows);
/* Sums the log-ratios of mismatched rows (real; tokens: count; a row of 0 tokens is none) and
 * counts them. Add several, all-reduce, then ... */
PROSPECT_API prospect_status prospect_mismatched_kl_cpu(prospect_row policy, prospect_row reference,
                                                        prospect_row tokens,
                                                        prospect_observation* observed,
                                                        const prospect_context* context,
                                                        prospect_error* error);
/* ... turn the observation into the point. No observation gives 0; one that is not finite is
 * refused. */
PROSPECT_API prospect_status prospect_reference_point_from(prospect_observation observed,
                                                           prospect_reference_point* point,
                                                           prospect_error* error);

/* An exponential moving average of observations, bias-corrected. Plain data: keep it in a
 * checkpoint. Start with {decay, 0, 0}. An observation that is not finite is refused. */
typedef struct prospect_ema {
  double decay; /* in [0, 1) */
  double average;
  double weight;
} prospect_ema;
PROSPECT_API prospect_status prospect_ema_add(prospect_ema* ema, prospect_observation observed,
                                              prospect_error* error);
PROSPECT_API prospect_status prospect_ema_point(const prospect_ema* ema,
                                                prospect_reference_point* point,
                                                prospect_error* error);

/* BCO's point: the mean log-ratio of every example so far, of both classes, not clamped. Plain
 * data: keep it in a checkpoint. Start with {0, 0}; add what prospect_mismatched_kl_cpu says of a
 * batch's own rows before the batch is measured against the point. */
typedef struct prospect_running_mean {
  double sum; /* nats */
  double count;
} prospect_running_mean;
PROSPECT_API prospect_status prospect_running_mean_add(prospect_running_mean* mean,
                                                       prospect_observation observed,
                                                       prospect_error* error);
PROSPECT_API prospect_status prospect_running_mean_point(const prospect_running_mean* mean,
                                                         prospect_reference_point* point,
                                                         prospect_error* error);

typedef int32_t prospect_weight_bound;
enum {
  PROSPECT_FOUR_THIRDS = 0, /* first version of arXiv:2402.01306, TRL */
  PROSPECT_THREE_HALVES = 1 /* later versions */
};

/* Both ends of the recommended interval of class weights. */
typedef struct prospect_class_weights {
  double desirable_low, undesirable_low;
  double desirable_high, undesirable_high;
} prospect_class_weights;
PROSPECT_API prospect_status prospect_propose_class_weights(double n_desirable,
                                                            double n_undesirable,
                                                            prospect_weight_bound bound,
                                                            prospect_class_weights* weights,
                                                            prospect_error* error);

#ifdef __cplusplus
}
#endif

#endif
