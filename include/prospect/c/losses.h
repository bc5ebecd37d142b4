/* The built-in losses: by name, with their hyper-parameters by name, and metrics by name. */
#ifndef PROSPECT_C_LOSSES_H
#define PROSPECT_C_LOSSES_H

#include <prospect/c/base.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What a loss takes. A kind that you do not know is one of a later version. */
typedef int32_t prospect_kind;
enum {
  PROSPECT_PAIRED_LOSS = 0,   /* prospect_pairs */
  PROSPECT_UNPAIRED_LOSS = 1, /* prospect_completions */
  PROSPECT_TOKEN_LOSS = 2     /* prospect_token_batch */
};

/* A loss and its hyper-parameters. Plain data, 1 KiB for ever: copy it freely within a process, but
 * store names and values instead. Only the functions below know what is in it. */
typedef struct prospect_loss {
  double opaque[128];
} prospect_loss;

/* The built-in losses, 0 <= index < count. NULL beyond the end. */
PROSPECT_API int32_t prospect_loss_count(void);
PROSPECT_API const char* prospect_loss_name(int32_t index);

/* Makes `loss` the one of this name, at its defaults. */
PROSPECT_API prospect_status prospect_loss_init(prospect_loss* loss, const char* name,
                                                prospect_error* error);
PROSPECT_API prospect_status prospect_loss_kind(const prospect_loss* loss, prospect_kind* kind,
                                                prospect_error* error);
/* The names of its parameters, 0 <= index. NULL beyond the end, or for an invalid loss. */
PROSPECT_API const char* prospect_loss_parameter(const prospect_loss* loss, int32_t index);
/* Refuses a value that makes the loss invalid (beta <= 0, ...), and then changes nothing. */
PROSPECT_API prospect_status prospect_loss_set(prospect_loss* loss, const char* parameter,
                                               double value, prospect_error* error);
PROSPECT_API prospect_status prospect_loss_get(const prospect_loss* loss, const char* parameter,
                                               double* value, prospect_error* error);

/* Makes the loss one of scores: s(u) for every log-ratio u, s(u) = f'(e^u) of the divergence that
 * holds the policy to its reference (f-DPO, arXiv:2309.16240), with the constant that makes s(0) 0.
 *
 *   "reverse_kl"        u                                    what every loss begins with
 *   "forward_kl"        1 - exp(-u)
 *   "js_divergence"     log 2 - log(1 + exp(-u))
 *   "alpha_divergence"  (exp((alpha-1) u) - 1) / (alpha-1)   reverse KL at alpha 1, forward at 0
 *
 * Scores are of sums; ipo and sigmoid_norm divide them by tokens. `alpha` (-1e30 to 1e30) is read
 * for alpha_divergence alone. Rewards and metrics stay those of the log-ratios.
 * PROSPECT_UNSUPPORTED for a loss that is no function of a difference of log-ratios; the message
 * names those that are.
 *
 * Where (alpha-1) u is far out: in fp32 it is held at 80, with slope 0 beyond, so that no pair
 * makes a step infinite; in fp64 what is too large is infinite, with the right sign. Never NaN. */
PROSPECT_API prospect_status prospect_loss_set_score(prospect_loss* loss, const char* score,
                                                     double alpha, prospect_error* error);

/* How the losses of tokens become one; each loss begins with that of its paper. */
typedef int32_t prospect_averaging;
enum {
  PROSPECT_TOKENS = 0, /* the mean over all scored tokens of the batch */
  PROSPECT_SEQUENCE_MEANS =
      1, /* each sequence's mean over its tokens; then the mean over sequences */
  PROSPECT_SEQUENCE_SUMS = 2 /* each sequence's sum over its tokens; then the mean over sequences */
};
/* Averages a loss of tokens another way, e.g. gspo over tokens. PROSPECT_UNSUPPORTED for a loss of
 * another kind. */
PROSPECT_API prospect_status prospect_loss_set_averaging(prospect_loss* loss,
                                                         prospect_averaging averaging,
                                                         prospect_error* error);

/* ---- Metrics --------------------------------------------------------------------------------- */

/* A sum and the number of its terms: all-reduce both, then divide. count 0 = absent, not 0. */
typedef struct prospect_metric {
  const char* name; /* as Hugging Face trainers log it, e.g. "rewards/chosen"; static storage */
  double sum;
  double count;
} prospect_metric;

/* Of one call. `metric` is the caller's array, of `capacity` elements; `size` says how many metrics
 * there are, and as many of them as there is room for are written. */
typedef struct prospect_metrics {
  size_t struct_size;
  prospect_metric* metric;
  int32_t capacity;
  int32_t size;
  double total;            /* the scalar loss: the sum over examples after the normaliser */
  int64_t first_nonfinite; /* index of the first NaN or infinite example, or -1 */
} prospect_metrics;

/* The mean of the metric of this name. PROSPECT_ABSENT where nothing was counted, and
 * PROSPECT_UNKNOWN_NAME where there is no such metric; *mean then stays as it is. */
PROSPECT_API prospect_status prospect_metric_get(const prospect_metrics* metrics, const char* name,
                                                 double* mean);

#ifdef __cplusplus
}
#endif

#endif
