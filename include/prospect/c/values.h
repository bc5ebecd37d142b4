/* The clipped value loss that goes with PPO. */
#ifndef PROSPECT_C_VALUES_H
#define PROSPECT_C_VALUES_H

#include <prospect/c/sequences.h>

#ifdef __cplusplus
extern "C" {
#endif

/* n tokens' value estimates; see prospect/losses/value/clipped_value.hpp. */
typedef struct prospect_values {
  size_t struct_size;
  int32_t normaliser;     /* prospect_normaliser; counts are of scored tokens */
  int32_t reserved;       /* 0 */
  double count;           /* for PROSPECT_OVER */
  const double* count_at; /* for PROSPECT_OVER_AT */
  double cliprange_value; /* 0: 0.2 */
  prospect_row value;     /* real */
  prospect_row old_value; /* real */
  prospect_row returns;   /* real */
  prospect_row mask;      /* U8, BOOL, I32 or F32; 0 = not scored; not given: all are */
  prospect_row loss;      /* real, written; unreduced */
  prospect_row d_value;   /* real, written; after the normaliser */
} prospect_values;

/* `metrics` may be NULL. Inputs are checked before anything is written. */
PROSPECT_API prospect_status prospect_value_loss_cpu(const prospect_values* values,
                                                     prospect_metrics* metrics,
                                                     const prospect_context* context,
                                                     prospect_error* error);

#ifdef __cplusplus
}
#endif

#endif
