/* From rewards of completions that were sampled for the same prompts to advantages, pairs and
 * optimal values; see prospect/cpu/rewards.hpp. On the host: rewards are few. */
#ifndef PROSPECT_C_REWARDS_H
#define PROSPECT_C_REWARDS_H

#include <prospect/c/tokens.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef int32_t prospect_advantage;
enum {
  PROSPECT_GRPO = 0, /* (r - mean) / (deviation + epsilon), by group */
  PROSPECT_RLOO = 1, /* r - mean of the others */
  PROSPECT_GDPO = 2  /* several rewards, normalised one by one, then their sum over the batch */
};

typedef int32_t prospect_scale_rewards;
enum {
  PROSPECT_SCALE_GROUP = 0, /* deviation of the group */
  PROSPECT_SCALE_BATCH = 1, /* of all rewards of the call */
  PROSPECT_SCALE_NONE = 2   /* not scaled: Dr. GRPO */
};

/* Completions of one prompt are a sequence of `groups`. One whose reward is not finite takes part
 * in nothing and has advantage NaN. */
typedef struct prospect_advantages {
  size_t struct_size;
  int32_t advantage;  /* prospect_advantage */
  int32_t scale;      /* prospect_scale_rewards, of GRPO */
  int32_t population; /* not 0: deviations over n, not n - 1; of GRPO */
  int32_t reserved;   /* 0 */
  double epsilon;     /* 0: 1e-4; of GRPO and GDPO */
  const prospect_layout* groups;
  const prospect_row* rewards; /* real; one row, of GDPO any number of rows of one size */
  int64_t components;          /* how many rows */
  const double* weights;       /* one for each row; NULL: 1 each; of GDPO */
  prospect_row advantages;     /* real; written */
} prospect_advantages;

/* `unrewarded` and `first_unrewarded` may be NULL: how many rewards are not finite, and which is
 * the first, or -1. */
PROSPECT_API prospect_status prospect_advantages_cpu(const prospect_advantages* advantages,
                                                     int64_t* unrewarded, int64_t* first_unrewarded,
                                                     prospect_error* error);

/* Online DPO's pairs: of each group the first of the highest and the last of the lowest rewards, as
 * positions (chosen, rejected: index, one for each group). Writes the first *pairs elements: a
 * group without two finite rewards gives none. */
PROSPECT_API prospect_status prospect_best_and_worst_cpu(prospect_row rewards,
                                                         const prospect_layout* groups,
                                                         prospect_row chosen, prospect_row rejected,
                                                         int64_t* pairs, prospect_error* error);

/* A2PO's optimal value of a prompt, beta1 log mean exp(r / beta1). */
PROSPECT_API prospect_status prospect_optimal_value_cpu(prospect_row rewards, double beta1,
                                                        double* value, prospect_error* error);

#ifdef __cplusplus
}
#endif

#endif
