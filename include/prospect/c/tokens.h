/* Phases 1 and 3: logits to log-probabilities of the target tokens, and coefficients back. */
#ifndef PROSPECT_C_TOKENS_H
#define PROSPECT_C_TOKENS_H

#include <prospect/c/base.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Which rows belong to which sequence, one of:
 *
 *   packed  `offsets` (index) has one element more than there are sequences;
 *   ranges  `begins` and `ends` (index): ascending, disjoint, and rows may be left out;
 *   padded  `sequences` blocks of `length` rows each, where none of the above is given. */
typedef struct prospect_layout {
  size_t struct_size;
  int64_t sequences, length;
  prospect_row offsets;
  prospect_row begins, ends;
} prospect_layout;

/* What is known of the tokens of a batch, one element for each row of logits: filled in once and
 * given to every call on it. A field that is 0, NULL or not given is not used: temperature 1, no
 * cap, the whole vocabulary. p = softmax(soft_cap tanh(x / soft_cap) / temperature). */
typedef struct prospect_tokens {
  size_t struct_size;
  prospect_row targets;              /* index; -100 = not scored */
  prospect_row mask;                 /* U8, BOOL, I32 or F32; 0 = not scored */
  prospect_row inverse_temperatures; /* float; times 1 / temperature */
  const prospect_layout* layout;     /* read by the functions on sequences alone */
  double temperature;
  double soft_cap;
  int64_t first_token;  /* token of column 0, where the vocabulary is split */
  int64_t vocabulary;   /* its whole size */
  int32_t zero_padding; /* not 0: columns [columns, pitch) of every gradient row become 0 */
  int32_t reserved;     /* 0 */
} prospect_tokens;

/* What the forward pass writes, all in one pass over the logits; see prospect/tokens.hpp.
 * `log_prob` and the statistics are double for PROSPECT_F64 logits and float otherwise. */
typedef struct prospect_token_results {
  size_t struct_size;
  prospect_row log_prob;
  prospect_row lse; /* double */
  prospect_row entropy, sum_squares, mean_logit;
  prospect_row target_is_argmax; /* flag */
} prospect_token_results;

/* What the backward pass reads: `log_prob` and `lse` of the forward pass, and either one
 * coefficient a row, dL/dlogp, or two, or these and a third for the row's entropy; all but lse as
 * `log_prob` above. See token_coefficients in prospect/tokens.hpp. */
typedef struct prospect_token_coefficients {
  size_t struct_size;
  prospect_row log_prob;
  prospect_row lse;
  prospect_row d_token;         /* row t becomes d_token[t] (onehot - softmax) */
  prospect_row softmax, onehot; /* row t becomes softmax[t] softmax - onehot[t] onehot */
  prospect_row d_entropy; /* dL/dH, where softmax and onehot are given: its gradient is added */
  prospect_row entropy;   /* that of the forward pass, where d_entropy is given */
} prospect_token_coefficients;

/* Logits are not written. */
PROSPECT_API prospect_status prospect_token_log_probs_cpu(prospect_matrix logits,
                                                          const prospect_tokens* tokens,
                                                          const prospect_token_results* results,
                                                          const prospect_context* context,
                                                          prospect_error* error);
/* The same, and row t of the logits becomes onehot - softmax, the gradient of its log-prob. */
PROSPECT_API prospect_status prospect_token_log_probs_and_gradient_cpu(
    prospect_matrix logits, const prospect_tokens* tokens, const prospect_token_results* results,
    const prospect_context* context, prospect_error* error);
/* `gradient` is the logits themselves, or a matrix of their size and dtype that does not overlap
 * them. */
PROSPECT_API prospect_status prospect_logits_gradient_cpu(
    prospect_matrix logits, prospect_matrix gradient, const prospect_tokens* tokens,
    const prospect_token_coefficients* coefficients, const prospect_context* context,
    prospect_error* error);
/* Multiplies row t of a matrix by factors[t], which are as `log_prob` above. */
PROSPECT_API prospect_status prospect_scale_rows_cpu(prospect_matrix matrix, prospect_row factors,
                                                     const prospect_context* context,
                                                     prospect_error* error);

/* Sums over the scored tokens of each sequence. `token_log_prob` is float or double. Written, and
 * either may be left out: `log_prob` (double) and `counts` (count). */
PROSPECT_API prospect_status prospect_sequence_sums_cpu(const prospect_tokens* tokens,
                                                        prospect_row token_log_prob,
                                                        prospect_row log_prob, prospect_row counts,
                                                        const prospect_context* context,
                                                        prospect_error* error);
/* A sequence's coefficient (real) to each of its scored tokens, and 0 to the others.
 * `d_token` is float or double. */
PROSPECT_API prospect_status prospect_spread_cpu(const prospect_tokens* tokens,
                                                 prospect_row d_sequence, prospect_row d_token,
                                                 const prospect_context* context,
                                                 prospect_error* error);
/* How the scored tokens of a sequence are reduced where a plain sum will not do: LD-DPO, humanline,
 * HALOs' counts; see prospect/token_reducer.hpp. The same value goes to prospect_reduced_sums_* and
 * prospect_reduced_spread_*. A field that is 0 or not given is not used, but for `ld_alpha`. */
typedef struct prospect_token_reducer {
  size_t struct_size;
  prospect_row log_prob;      /* real; one for each row of the batch */
  prospect_row reference;     /* real; likewise: log_prob - reference is summed */
  double log_epsilon_P;       /* each log-ratio is clamped from below (humanline: -1) */
  double log_epsilon_R;       /* and from above (humanline: 1.5) */
  prospect_row public_tokens; /* count; one for each sequence, of weight 1: the others weigh */
  double ld_alpha;            /* this, 0 to 1 */
  int32_t count_nonzero; /* not 0: counts are of tokens whose log-ratio is not 0, but at least 1 */
  int32_t reserved;      /* 0 */
} prospect_token_reducer;

/* As prospect_sequence_sums_cpu, by a reducer. With a reference, `log_prob` is a sum of log-ratios:
 * the policy of a batch whose reference is 0. */
PROSPECT_API prospect_status prospect_reduced_sums_cpu(const prospect_tokens* tokens,
                                                       const prospect_token_reducer* reducer,
                                                       prospect_row log_prob, prospect_row counts,
                                                       const prospect_context* context,
                                                       prospect_error* error);
/* Its reverse, by the same reducer. `d_token` is real. */
PROSPECT_API prospect_status prospect_reduced_spread_cpu(
    const prospect_tokens* tokens, const prospect_token_reducer* reducer, prospect_row d_sequence,
    prospect_row d_token, const prospect_context* context, prospect_error* error);
/* The smaller token count of each sequence's pair, for LD-DPO. `chosen` and `rejected` (index) say
 * which two are a pair; where they are not given, chosen sequences are the first half, rejected
 * ones the second. No sequence may be in two pairs. */
PROSPECT_API prospect_status prospect_public_tokens_cpu(prospect_row counts, prospect_row chosen,
                                                        prospect_row rejected,
                                                        prospect_row public_tokens,
                                                        const prospect_context* context,
                                                        prospect_error* error);
/* WPO's weight of each sequence (real), from two rows (real) of the forward pass. */
PROSPECT_API prospect_status prospect_wpo_weights_cpu(const prospect_tokens* tokens,
                                                      prospect_row token_log_prob,
                                                      prospect_row sum_squares, prospect_row weight,
                                                      const prospect_context* context,
                                                      prospect_error* error);
/* The product of the weights of each pair's sequences: the `weight` of pairs. */
PROSPECT_API prospect_status prospect_pair_weights_cpu(prospect_row weight, prospect_row chosen,
                                                       prospect_row rejected,
                                                       prospect_row pair_weight,
                                                       const prospect_context* context,
                                                       prospect_error* error);

/* targets[t] = labels[t + 1] inside each sequence, -100 at its end. `labels` is an index row,
 * `targets` I32. */
PROSPECT_API prospect_status prospect_shift_targets_cpu(prospect_row labels,
                                                        const prospect_layout* layout,
                                                        prospect_row targets,
                                                        const prospect_context* context,
                                                        prospect_error* error);

/* What a row of a part of the vocabulary contributes (prospect/vocabulary.hpp): gather those of all
 * parts, [parts, rows] in the order of the vocabulary, and give them to prospect_combine_partials.
 */
typedef struct prospect_partial {
  double shift, exponentials, squares, weighted, logits, tokens, targets, target, before, after;
} prospect_partial;

/* The columns are tokens first_token, first_token + 1, ... of tokens->vocabulary. `partials` has an
 * element for each row. `statistics`: whether any but log_prob and lse will be asked for. */
PROSPECT_API prospect_status prospect_vocabulary_partials_cpu(
    prospect_matrix logits, const prospect_tokens* tokens, int32_t statistics,
    prospect_partial* partials, const prospect_context* context, prospect_error* error);
/* `results` may be float or double. */
PROSPECT_API prospect_status prospect_combine_partials_cpu(
    const prospect_partial* partials, int64_t parts, const prospect_tokens* tokens,
    const prospect_token_results* results, const prospect_context* context, prospect_error* error);

#ifdef __cplusplus
}
#endif

#endif
