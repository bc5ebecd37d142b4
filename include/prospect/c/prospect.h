/* The C surface of the archive prospect::kernels: C11, no other header of ours, nothing to free.
 *
 * Losses and parameters go by name, so a binding does not change when a loss is added. Every
 * function returns a status and, where `error` is not NULL, a sentence that names the argument.
 * Nothing is thrown, printed or kept: there is no global state, and calls are thread-safe as long
 * as their outputs do not overlap. Within a call, outputs must overlap neither inputs nor each
 * other.
 *
 * Structs that may grow start with `struct_size`: set it to sizeof, zero the rest, fill in what is
 * needed. A newer library reads an older, shorter struct as if its missing fields were zero; an
 * older library refuses a longer struct whose extra bytes are not zero.
 */
#ifndef PROSPECT_C_PROSPECT_H
#define PROSPECT_C_PROSPECT_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define PROSPECT_API __attribute__((visibility("default")))
#else
#define PROSPECT_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef enum prospect_status {
  PROSPECT_OK = 0,
  PROSPECT_INVALID_ARGUMENT = 1, /* a size, pointer, value or combination; see the message */
  PROSPECT_UNKNOWN_NAME = 2,     /* no loss or parameter of this name */
  PROSPECT_UNSUPPORTED = 3,      /* a dtype, kind or struct this version does not know */
  PROSPECT_INTERNAL_ERROR = 4,   /* out of memory, or a defect of ours */
  PROSPECT_CUDA_ERROR = 0x10000, /* PROSPECT_CUDA_ERROR + the cudaError_t that CUDA answered */
  PROSPECT_CUDA_ERROR_LAST = 0x1ffff
} prospect_status;

/* A message of at most 511 characters, written on failure only. */
typedef struct prospect_error {
  char message[512];
} prospect_error;

typedef enum prospect_dtype {
  PROSPECT_F32 = 0,
  PROSPECT_F64 = 1,
  PROSPECT_F16 = 2,
  PROSPECT_BF16 = 3,
  PROSPECT_I32 = 4, /* indices only */
  PROSPECT_I64 = 5  /* indices only */
} prospect_dtype;

/* `size` elements, `stride` elements apart; the dtype stands beside the rows that share it. Data
 * must be aligned to its element. size 0 means "not given" (inputs) or "not wanted" (outputs). */
typedef struct prospect_const_row {
  const void* data;
  int64_t size;
  int64_t stride;
} prospect_const_row;

typedef struct prospect_row {
  void* data;
  int64_t size;
  int64_t stride;
} prospect_row;

/* MAJOR * 10000 + MINOR * 100 + PATCH of the archive. */
PROSPECT_API uint32_t prospect_version(void);
PROSPECT_API const char* prospect_status_string(prospect_status status);

/* ---- Losses ---------------------------------------------------------------------------------- */

#define PROSPECT_MAX_PARAMETERS 14

typedef enum prospect_kind { PROSPECT_PAIRED_LOSS = 0, PROSPECT_UNPAIRED_LOSS = 1 } prospect_kind;

/* A loss and its hyper-parameters. Plain data of a fixed size: copy it freely. `id` is a position
 * in this version's list; store the name instead. */
typedef struct prospect_loss {
  uint32_t struct_size;
  int32_t id;
  double value[PROSPECT_MAX_PARAMETERS];
} prospect_loss;

/* The built-in losses, 0 <= index < count. NULL beyond the end. */
PROSPECT_API int32_t prospect_loss_count(void);
PROSPECT_API const char* prospect_loss_name(int32_t index);

/* Fills `loss` (its struct_size too) with the defaults of the loss of this name. */
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

/* ---- Sequences: losses and coefficients from summed log-probabilities --------------------------
 */

/* What the summed loss is divided by before its gradient is handed out. */
typedef enum prospect_normaliser {
  PROSPECT_MEAN = 0,   /* the number of counted examples of this call */
  PROSPECT_SUM = 1,    /* nothing */
  PROSPECT_OVER = 2,   /* `count`, e.g. a global count over ranks and micro-batches */
  PROSPECT_OVER_AT = 3 /* `*count_at`: read when the work is done, on the device for _cuda */
} prospect_normaliser;

/* A sum and the number of its terms: all-reduce both, then divide. count 0 = absent, not 0. */
typedef struct prospect_metric {
  const char* name; /* as Hugging Face trainers log it, e.g. "rewards/chosen"; static storage */
  double sum;
  double count;
} prospect_metric;

typedef struct prospect_metrics {
  uint32_t struct_size;
  int32_t size;            /* metrics filled in below */
  double total;            /* the scalar loss: the sum over examples after the normaliser */
  int64_t first_nonfinite; /* index of the first NaN or infinite example, or -1 */
  prospect_metric metric[16];
} prospect_metrics;

/* n pairs: rows of n elements of `dtype`, token counts int32. See prospect/batch.hpp. */
typedef struct prospect_pairs {
  uint32_t struct_size;
  int32_t dtype;      /* prospect_dtype of every floating-point row */
  int32_t normaliser; /* prospect_normaliser */
  int32_t reserved;   /* 0 */
  double count;       /* for PROSPECT_OVER */
  prospect_const_row policy_chosen, policy_rejected;
  prospect_const_row reference_chosen, reference_rejected;
  prospect_const_row chosen_tokens, rejected_tokens; /* int32 */
  prospect_row loss;                                 /* unreduced */
  prospect_row d_policy_chosen, d_policy_rejected;   /* dL/dP after the normaliser */
  prospect_row reward_chosen, reward_rejected;       /* beta x log-ratio */
  const double* count_at;                            /* for PROSPECT_OVER_AT */
} prospect_pairs;

typedef enum prospect_reference {
  PROSPECT_GIVEN_POINT = 0, /* `z`, `z_raw` */
  PROSPECT_CROSS_CLASS = 1, /* HALOs' SimpleKTO: the other class's mean, attached; z is ignored */
  PROSPECT_OBSERVED = 2,    /* the clamped mean of `*observed`, e.g. after an all-reduce */
  PROSPECT_BATCH_MEAN = 3   /* that of the mismatched rows below */
} prospect_reference;

/* A sum and the number of its terms. */
typedef struct prospect_sum_count {
  double sum;
  double count;
} prospect_sum_count;

/* n completions with binary feedback. */
typedef struct prospect_completions {
  uint32_t struct_size;
  int32_t dtype;
  int32_t normaliser;
  int32_t reference_point; /* prospect_reference */
  double count;            /* for PROSPECT_OVER */
  double z, z_raw;         /* nats; z_raw is only reported */
  prospect_const_row policy, reference;
  prospect_const_row desirable; /* uint8: 0 = thumb down */
  prospect_const_row tokens;    /* int32 */
  prospect_row loss, d_policy, reward;
  const double* count_at;             /* for PROSPECT_OVER_AT */
  const prospect_sum_count* observed; /* for PROSPECT_OBSERVED */
  /* For PROSPECT_BATCH_MEAN: rows of any size of their own; tokens int32, may be left out. */
  prospect_const_row mismatched_policy, mismatched_reference, mismatched_tokens;
} prospect_completions;

/* `metrics` may be NULL. Inputs are checked before anything is written. */
PROSPECT_API prospect_status prospect_pairs_cpu(const prospect_loss* loss,
                                                const prospect_pairs* pairs,
                                                prospect_metrics* metrics, prospect_error* error);
PROSPECT_API prospect_status prospect_completions_cpu(const prospect_loss* loss,
                                                      const prospect_completions* completions,
                                                      prospect_metrics* metrics,
                                                      prospect_error* error);

/* ---- KTO's reference point and class weights ---------------------------------------------------
 */

typedef struct prospect_reference_point {
  double z;   /* max(0, raw), nats */
  double raw; /* before clamping */
} prospect_reference_point;

/* The row whose completion goes with row i's prompt: a rotation by one; -1 for fewer than 2 rows.
 */
PROSPECT_API int64_t prospect_mismatched_row(int64_t i, int64_t rows);
/* Sums the log-ratios of mismatched rows and counts them. Add several, all-reduce, then ... */
PROSPECT_API prospect_status prospect_mismatched_kl_cpu(
    prospect_dtype dtype, prospect_const_row policy, prospect_const_row reference,
    prospect_const_row tokens, prospect_sum_count* observed, prospect_error* error);
/* ... turn the observation into the point. No observation gives 0. */
PROSPECT_API prospect_reference_point prospect_reference_point_from(prospect_sum_count observed);

/* An exponential moving average of observations, bias-corrected. Plain data: keep it in a
 * checkpoint. Start with {decay, 0, 0}. */
typedef struct prospect_ema {
  double decay; /* in [0, 1) */
  double average;
  double weight;
} prospect_ema;
PROSPECT_API prospect_status prospect_ema_add(prospect_ema* ema, prospect_sum_count observed,
                                              prospect_error* error);
PROSPECT_API prospect_reference_point prospect_ema_point(const prospect_ema* ema);

typedef enum prospect_weight_bound {
  PROSPECT_FOUR_THIRDS = 0, /* first version of arXiv:2402.01306, TRL */
  PROSPECT_THREE_HALVES = 1 /* later versions */
} prospect_weight_bound;

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

/* ---- Tokens: logits to log-probabilities and back ----------------------------------------------
 */

/* Row-major [rows, columns]; `pitch` elements from one row to the next. */
typedef struct prospect_logits {
  void* data;
  int64_t rows, columns, pitch;
  int32_t dtype;
  int32_t reserved; /* 0 */
} prospect_logits;

/* A row of int32 or int64: targets (-100 = not scored) or offsets. */
typedef struct prospect_indices {
  prospect_const_row row;
  int32_t dtype;
  int32_t reserved; /* 0 */
} prospect_indices;

/* Padded: `sequences` blocks of `length` rows. Packed: offsets.row.size = sequences + 1, and
 * `sequences` and `length` are ignored. */
typedef struct prospect_layout {
  int64_t sequences, length;
  prospect_indices offsets;
} prospect_layout;

/* Who runs the loops over rows: run(context, n, body, argument) calls body(argument, i) once for
 * every i in [0, n), on any threads, and returns when all are done. Results do not depend on it. */
typedef struct prospect_executor {
  void* context;
  void (*run)(void* context, int64_t n, void (*body)(void* argument, int64_t i), void* argument);
} prospect_executor;

/* p = softmax(soft_cap tanh(x / soft_cap) / temperature). A field that is 0 or NULL is not used:
 * temperature 1, no cap, the whole vocabulary, the library's own threads (one for each core). */
typedef struct prospect_token_options {
  size_t struct_size;
  double temperature;
  double soft_cap;
  int64_t first_token; /* token of column 0, where the vocabulary is split */
  int64_t vocabulary;  /* its whole size */
  const prospect_executor* executor;
} prospect_token_options;

/* What else the forward pass may give, in the same pass over the logits; see
 * prospect/cpu/tokens.hpp. Types as `log_prob`'s, but for target_is_argmax, which is uint8. */
typedef struct prospect_token_statistics {
  size_t struct_size;
  prospect_row entropy, sum_squares, mean_logit, target_is_argmax;
} prospect_token_statistics;

/* `log_prob` is double for PROSPECT_F64 logits and float otherwise; `lse` is always double. Logits
 * are not written. `options` and `statistics` may be NULL. */
PROSPECT_API prospect_status prospect_token_log_probs_cpu(
    const prospect_logits* logits, const prospect_indices* targets,
    const prospect_token_options* options, prospect_row log_prob, prospect_row lse,
    const prospect_token_statistics* statistics, prospect_error* error);
/* The same, and row t of the logits becomes onehot - softmax, the gradient of its log-prob. */
PROSPECT_API prospect_status prospect_token_log_probs_and_gradient_cpu(
    const prospect_logits* logits, const prospect_indices* targets,
    const prospect_token_options* options, prospect_row log_prob, prospect_row lse,
    const prospect_token_statistics* statistics, prospect_error* error);
/* `dtype` is that of `token_log_prob` (F32 or F64). Sums are double, token counts int32. */
PROSPECT_API prospect_status prospect_sequence_sums_cpu(prospect_dtype dtype,
                                                        prospect_const_row token_log_prob,
                                                        const prospect_indices* targets,
                                                        const prospect_layout* layout,
                                                        prospect_row log_prob, prospect_row tokens,
                                                        prospect_error* error);
/* `d_sequence` is double, `d_token` of `dtype` (F32 or F64). */
PROSPECT_API prospect_status prospect_spread_cpu(prospect_dtype dtype,
                                                 prospect_const_row d_sequence,
                                                 const prospect_indices* targets,
                                                 const prospect_layout* layout,
                                                 prospect_row d_token, prospect_error* error);
/* In place: row t becomes d_token[t] (onehot - softmax). `log_prob` and `d_token` as above,
 * `options` those of the forward pass. */
PROSPECT_API prospect_status prospect_logits_gradient_cpu(
    const prospect_logits* logits, const prospect_indices* targets,
    const prospect_token_options* options, prospect_const_row log_prob, prospect_const_row lse,
    prospect_const_row d_token, prospect_error* error);
/* With two coefficients per token, row t of `gradient` becomes a softmax - b onehot; it may be the
 * logits themselves, or a matrix of the same size and dtype that does not overlap them. */
PROSPECT_API prospect_status prospect_logits_gradient_into_cpu(
    const prospect_logits* logits, const prospect_logits* gradient, const prospect_indices* targets,
    const prospect_token_options* options, prospect_const_row log_prob, prospect_const_row lse,
    prospect_const_row softmax, prospect_const_row onehot, prospect_error* error);
/* Multiplies row t of a matrix by factors[t]. */
PROSPECT_API prospect_status prospect_scale_rows_cpu(const prospect_logits* matrix,
                                                     prospect_const_row factors,
                                                     prospect_error* error);
/* `targets` is int32: targets[t] = labels[t + 1] inside each sequence, -100 at its end. */
PROSPECT_API prospect_status prospect_shift_targets(const prospect_indices* labels,
                                                    const prospect_layout* layout,
                                                    prospect_row targets, prospect_error* error);

/* What a row of a part of the vocabulary contributes (prospect/vocabulary.hpp): gather those of all
 * parts, [parts, rows] in the order of the vocabulary, and give them to prospect_combine_partials.
 */
typedef struct prospect_partial {
  double shift, exponentials, squares, weighted, logits, tokens, targets, target, before, after;
} prospect_partial;

/* The columns are tokens first_token, first_token + 1, ... of options->vocabulary. `partials` has
 * an element for each row. `statistics`: whether any but log_prob and lse will be asked for. */
PROSPECT_API prospect_status prospect_vocabulary_partials_cpu(const prospect_logits* logits,
                                                              const prospect_indices* targets,
                                                              const prospect_token_options* options,
                                                              int statistics,
                                                              prospect_partial* partials,
                                                              prospect_error* error);
/* `dtype` is that of `log_prob` (F32 or F64). */
PROSPECT_API prospect_status prospect_combine_partials_cpu(
    prospect_dtype dtype, const prospect_partial* partials, int64_t parts,
    const prospect_indices* targets, prospect_row log_prob, prospect_row lse,
    const prospect_token_statistics* statistics, prospect_error* error);

/* ---- The same on a CUDA device -----------------------------------------------------------------
 *
 * Every row, matrix, index and pointer to a count points to device memory. Calls put their work on
 * `stream` and return: nothing is allocated, waited for or read back, so that they can be captured
 * in a graph. What the host cannot see is safe: a target outside the vocabulary makes its row NaN.
 *
 * Where there is a `scratch`: NULL asks for its size, which is never 0, and does nothing else;
 * otherwise *scratch_size is that of the memory, aligned as cudaMalloc's is.
 *
 * A CUDA error is PROSPECT_CUDA_ERROR plus its code. An archive built without CUDA answers
 * PROSPECT_UNSUPPORTED. Executors of token options have no meaning here and must be NULL. Logits
 * are F32, F16 or BF16; whatever goes with them is float where the CPU's would be.
 */
struct CUstream_st;

/* Device memory for the metrics of a call. Copied to the host, prospect_read_metrics names them. */
#define PROSPECT_DEVICE_METRICS_SIZE 256
PROSPECT_API prospect_status prospect_read_metrics(prospect_kind kind, const void* copied,
                                                   prospect_metrics* metrics,
                                                   prospect_error* error);

/* `metrics` may be NULL. */
PROSPECT_API prospect_status prospect_pairs_cuda(const prospect_loss* loss,
                                                 const prospect_pairs* pairs, void* metrics,
                                                 void* scratch, size_t* scratch_size,
                                                 struct CUstream_st* stream, prospect_error* error);
PROSPECT_API prospect_status prospect_completions_cuda(
    const prospect_loss* loss, const prospect_completions* completions, void* metrics,
    void* scratch, size_t* scratch_size, struct CUstream_st* stream, prospect_error* error);
/* `observed` is on the device: all-reduce it there, and give it to PROSPECT_OBSERVED. */
PROSPECT_API prospect_status prospect_mismatched_kl_cuda(
    prospect_dtype dtype, prospect_const_row policy, prospect_const_row reference,
    prospect_const_row tokens, prospect_sum_count* observed, void* scratch, size_t* scratch_size,
    struct CUstream_st* stream, prospect_error* error);

PROSPECT_API prospect_status prospect_token_log_probs_cuda(
    const prospect_logits* logits, const prospect_indices* targets,
    const prospect_token_options* options, prospect_row log_prob, prospect_row lse,
    const prospect_token_statistics* statistics, void* scratch, size_t* scratch_size,
    struct CUstream_st* stream, prospect_error* error);
PROSPECT_API prospect_status prospect_token_log_probs_and_gradient_cuda(
    const prospect_logits* logits, const prospect_indices* targets,
    const prospect_token_options* options, prospect_row log_prob, prospect_row lse,
    const prospect_token_statistics* statistics, struct CUstream_st* stream, prospect_error* error);
PROSPECT_API prospect_status prospect_logits_gradient_cuda(
    const prospect_logits* logits, const prospect_indices* targets,
    const prospect_token_options* options, prospect_const_row log_prob, prospect_const_row lse,
    prospect_const_row d_token, struct CUstream_st* stream, prospect_error* error);
PROSPECT_API prospect_status prospect_logits_gradient_into_cuda(
    const prospect_logits* logits, const prospect_logits* gradient, const prospect_indices* targets,
    const prospect_token_options* options, prospect_const_row log_prob, prospect_const_row lse,
    prospect_const_row softmax, prospect_const_row onehot, struct CUstream_st* stream,
    prospect_error* error);
PROSPECT_API prospect_status prospect_scale_rows_cuda(const prospect_logits* matrix,
                                                      prospect_const_row factors,
                                                      struct CUstream_st* stream,
                                                      prospect_error* error);
PROSPECT_API prospect_status prospect_vocabulary_partials_cuda(
    const prospect_logits* logits, const prospect_indices* targets,
    const prospect_token_options* options, int statistics, prospect_partial* partials,
    void* scratch, size_t* scratch_size, struct CUstream_st* stream, prospect_error* error);
PROSPECT_API prospect_status prospect_combine_partials_cuda(
    const prospect_partial* partials, int64_t parts, const prospect_indices* targets,
    prospect_row log_prob, prospect_row lse, const prospect_token_statistics* statistics,
    struct CUstream_st* stream, prospect_error* error);
PROSPECT_API prospect_status prospect_sequence_sums_cuda(
    prospect_dtype dtype, prospect_const_row token_log_prob, const prospect_indices* targets,
    const prospect_layout* layout, prospect_row log_prob, prospect_row tokens,
    struct CUstream_st* stream, prospect_error* error);
PROSPECT_API prospect_status prospect_spread_cuda(prospect_dtype dtype,
                                                  prospect_const_row d_sequence,
                                                  const prospect_indices* targets,
                                                  const prospect_layout* layout,
                                                  prospect_row d_token, struct CUstream_st* stream,
                                                  prospect_error* error);
PROSPECT_API prospect_status prospect_shift_targets_cuda(const prospect_indices* labels,
                                                         const prospect_layout* layout,
                                                         prospect_row targets,
                                                         struct CUstream_st* stream,
                                                         prospect_error* error);

#ifdef __cplusplus
}
#endif

#endif
