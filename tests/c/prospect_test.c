/* A C11 program that does what a trainer does through the archive: logits to log-probabilities,
 * sums, KTO with a measured reference point, DPO by name, the gradient back into the logits, and
 * all of that in one call. Returns the number of things that were wrong. */
#include <prospect/c/prospect.h>

#include <math.h>
#include <stdio.h>
#include <string.h>

static int failures = 0;

static void check(int ok, const char* what) {
  if (!ok) {
    printf("FAILED: %s\n", what);
    ++failures;
  }
}

static int near(double a, double b) { return fabs(a - b) <= 1e-6 * (1 + fabs(b)); }

static void rows_say_what_they_are(void) {
  const float f[2] = {1, 2};
  double d[2] = {1, 2};
  const int32_t i[1] = {1};
  int64_t l[1] = {1};
  const uint8_t u[1] = {1};
  bool b[1] = {true};
  check(PROSPECT_ROW(f, 2).dtype == PROSPECT_F32 && PROSPECT_ROW(d, 2).dtype == PROSPECT_F64 &&
            PROSPECT_ROW(i, 1).dtype == PROSPECT_I32 && PROSPECT_ROW(l, 1).dtype == PROSPECT_I64 &&
            PROSPECT_ROW(u, 1).dtype == PROSPECT_U8 && PROSPECT_ROW(b, 1).dtype == PROSPECT_BOOL,
        "dtypes of pointers");
  check(prospect_row_slice(PROSPECT_ROW(d, 2), 1, 1).data == &d[1], "slices");
}

static void list_losses(void) {
  check(prospect_version() > 0, "there is a version");
  check(prospect_loss_count() >= 7, "at least the first seven losses");
  check(prospect_loss_name(-1) == NULL && prospect_loss_name(9999) == NULL, "names end");
  for (int32_t i = 0; i < prospect_loss_count(); ++i) {
    prospect_loss loss;
    check(prospect_loss_init(&loss, prospect_loss_name(i), NULL) == PROSPECT_OK, "init by name");
    for (int32_t k = 0; prospect_loss_parameter(&loss, k) != NULL; ++k) {
      double value = NAN;
      check(
          prospect_loss_get(&loss, prospect_loss_parameter(&loss, k), &value, NULL) == PROSPECT_OK,
          "get by name");
      check(isfinite(value), "defaults are numbers");
    }
  }
}

static void errors_have_sentences(void) {
  prospect_error error = {""};
  prospect_loss loss;
  check(prospect_loss_init(&loss, "dop", &error) == PROSPECT_UNKNOWN_NAME, "unknown loss");
  check(strstr(error.message, "dop") != NULL && strstr(error.message, "kto_zero") != NULL,
        "message names the loss and the known ones");
  check(prospect_loss_init(&loss, "dpo", NULL) == PROSPECT_OK, "dpo");
  check(prospect_loss_set(&loss, "gamma", 1, &error) == PROSPECT_UNKNOWN_NAME, "unknown parameter");
  check(strstr(error.message, "label_smoothing") != NULL, "message lists parameters");
  check(prospect_loss_set(&loss, "beta", -1, &error) == PROSPECT_INVALID_ARGUMENT, "beta <= 0");
  double beta = 0;
  check(prospect_loss_get(&loss, "beta", &beta, NULL) == PROSPECT_OK && beta == 0.1,
        "a refused value changes nothing");
  prospect_pairs pairs = {0};
  check(prospect_pairs_cpu(&loss, &pairs, NULL, NULL, &error) == PROSPECT_INVALID_ARGUMENT,
        "struct_size must be set");
  check(prospect_pairs_cpu(&loss, NULL, NULL, NULL, &error) == PROSPECT_INVALID_ARGUMENT,
        "NULL pairs");
  check(strcmp(prospect_status_string(PROSPECT_UNKNOWN_NAME), "unknown name") == 0,
        "status string");
}

static void dpo_by_name(void) {
  const float pc[2] = {-10, -20}, pr[2] = {-12, -19}, rc[2] = {-11, -19}, rr[2] = {-11, -20};
  float loss_i[2], dc[2];
  double dr[2];
  prospect_loss loss;
  prospect_loss_init(&loss, "dpo", NULL);
  prospect_loss_set(&loss, "beta", 0.5, NULL);
  prospect_metric room[16];
  prospect_metrics metrics = {.struct_size = sizeof metrics, .metric = room, .capacity = 16};
  const prospect_pairs pairs = {.struct_size = sizeof pairs,
                                .normaliser = PROSPECT_OVER,
                                .count = 4,
                                .policy_chosen = PROSPECT_ROW(pc, 2),
                                .policy_rejected = PROSPECT_ROW(pr, 2),
                                .reference_chosen = PROSPECT_ROW(rc, 2),
                                .reference_rejected = PROSPECT_ROW(rr, 2),
                                .loss = PROSPECT_ROW(loss_i, 2),
                                .d_policy_chosen = PROSPECT_ROW(dc, 2),
                                .d_policy_rejected = PROSPECT_ROW(dr, 2)};
  check(prospect_pairs_cpu(&loss, &pairs, &metrics, NULL, NULL) == PROSPECT_OK, "dpo evaluates");
  for (int i = 0; i < 2; ++i) {
    const double m = 0.5 * ((pc[i] - rc[i]) - (pr[i] - rr[i]));
    check(near(loss_i[i], log1p(exp(-m))), "dpo loss");
    check(near(dc[i], -0.5 / (1 + exp(m)) / 4) && dc[i] == (float)-dr[i], "dpo coefficient");
  }
  double mean = 0;
  check(prospect_metric_get(&metrics, "loss", &mean) == PROSPECT_OK &&
            near(mean, ((double)loss_i[0] + loss_i[1]) / 2),
        "a metric by name");
  check(prospect_metric_get(&metrics, "no such metric", &mean) == PROSPECT_UNKNOWN_NAME,
        "no metric");
  check(near(metrics.total, ((double)loss_i[0] + loss_i[1]) / 4), "total");
  check(metrics.first_nonfinite == -1, "all finite");
}

enum { rows = 6, sequences = 2, vocabulary = 5 };
static const int64_t target[rows] = {-100, 3, 1, -100, 0, 4};
static const int32_t offset[sequences + 1] = {0, 3, 6};
static const double reference[sequences] = {-4, -4};
static const double kl_policy[2] = {-3, -5}, kl_reference[2] = {-4, -4.5};
static const bool desirable[sequences] = {true, false};

static void kto_from_logits(float* logits) {
  const prospect_matrix x = PROSPECT_MATRIX(logits, rows, vocabulary);
  prospect_layout layout;
  PROSPECT_INIT(layout);
  layout.offsets = PROSPECT_ROW(offset, sequences + 1);
  prospect_tokens tokens;
  PROSPECT_INIT(tokens);
  tokens.targets = PROSPECT_ROW(target, rows);
  tokens.layout = &layout;
  float log_prob[rows], d_token[rows];
  double lse[rows], policy[sequences], d_policy[sequences];
  int32_t n[sequences];
  prospect_token_results results;
  PROSPECT_INIT(results);
  results.log_prob = PROSPECT_ROW(log_prob, rows);
  results.lse = PROSPECT_ROW(lse, rows);
  check(prospect_token_log_probs_cpu(x, &tokens, &results, NULL, NULL) == PROSPECT_OK, "log-probs");
  check(prospect_sequence_sums_cpu(&tokens, results.log_prob, PROSPECT_ROW(policy, sequences),
                                   PROSPECT_ROW(n, sequences), NULL, NULL) == PROSPECT_OK,
        "sums");
  check(n[0] == 2 && n[1] == 2, "two scored tokens each");
  check(near(policy[0], (double)log_prob[1] + log_prob[2]), "sum of scored tokens");

  prospect_observation seen;
  prospect_reference_point point;
  const prospect_row none = {0};
  check(prospect_mismatched_kl_cpu(PROSPECT_ROW(kl_policy, 2), PROSPECT_ROW(kl_reference, 2), none,
                                   &seen, NULL, NULL) == PROSPECT_OK,
        "kl");
  check(prospect_reference_point_from(seen, &point, NULL) == PROSPECT_OK && near(point.z, 0.25) &&
            point.z == point.raw,
        "z is the mean log-ratio");
  check(prospect_mismatched_row(2, 3) == 0 && prospect_mismatched_row(0, 1) == -1, "rotation");

  prospect_loss loss;
  prospect_loss_init(&loss, "kto", NULL);
  prospect_completions c;
  PROSPECT_INIT(c);
  c.z = point.z;
  c.z_raw = point.raw;
  c.policy = PROSPECT_ROW(policy, sequences);
  c.reference = PROSPECT_ROW(reference, sequences);
  c.desirable = PROSPECT_ROW(desirable, sequences);
  c.tokens = PROSPECT_ROW(n, sequences);
  c.d_policy = PROSPECT_ROW(d_policy, sequences);
  check(prospect_completions_cpu(&loss, &c, NULL, NULL, NULL) == PROSPECT_OK, "kto");
  for (int i = 0; i < sequences; ++i) {
    const double sign = desirable[i] ? 1 : -1, u = sign * 0.1 * (policy[i] + 4 - point.z);
    check(near(d_policy[i], -sign * 0.1 * exp(-u) / pow(1 + exp(-u), 2) / 2), "kto coefficient");
  }

  check(prospect_spread_cpu(&tokens, c.d_policy, PROSPECT_ROW(d_token, rows), NULL, NULL) ==
            PROSPECT_OK,
        "spread");
  prospect_token_coefficients coefficients;
  PROSPECT_INIT(coefficients);
  coefficients.log_prob = results.log_prob;
  coefficients.lse = results.lse;
  coefficients.d_token = PROSPECT_ROW(d_token, rows);
  check(prospect_logits_gradient_cpu(x, x, &tokens, &coefficients, NULL, NULL) == PROSPECT_OK,
        "gradient");
  for (int t = 0; t < rows; ++t) {
    double row = 0, absolute = 0;
    for (int v = 0; v < vocabulary; ++v) {
      row += logits[t * vocabulary + v];
      absolute += fabs(logits[t * vocabulary + v]);
    }
    check(fabs(row) < 1e-7, "gradient rows sum to 0");
    check((absolute > 0) == (target[t] != -100), "only scored rows have a gradient");
  }
}

static void kto_in_one_call(float* logits) {
  prospect_layout layout;
  PROSPECT_INIT(layout);
  layout.offsets = PROSPECT_ROW(offset, sequences + 1);
  prospect_tokens tokens;
  PROSPECT_INIT(tokens);
  tokens.targets = PROSPECT_ROW(target, rows);
  tokens.layout = &layout;
  prospect_loss loss;
  prospect_loss_init(&loss, "kto", NULL);
  prospect_completions c;
  PROSPECT_INIT(c);
  c.reference = PROSPECT_ROW(reference, sequences);
  c.desirable = PROSPECT_ROW(desirable, sequences);
  c.reference_point = PROSPECT_BATCH_MEAN;
  c.mismatched_policy = PROSPECT_ROW(kl_policy, 2);
  c.mismatched_reference = PROSPECT_ROW(kl_reference, 2);
  prospect_step step;
  PROSPECT_INIT(step);
  step.logits = PROSPECT_MATRIX(logits, rows, vocabulary);
  step.tokens = &tokens;
  step.loss = &loss;
  step.completions = &c;
  prospect_metrics metrics;
  PROSPECT_INIT(metrics);

  size_t bytes = 0;
  double scratch[512];
  prospect_context context;
  PROSPECT_INIT(context);
  context.query = &bytes;
  check(prospect_step_cpu(&step, &metrics, &context, NULL) == PROSPECT_OK && bytes > 0 &&
            bytes <= sizeof scratch,
        "what a step takes");
  context.query = NULL;
  context.scratch = scratch;
  context.scratch_size = bytes;
  check(prospect_step_cpu(&step, &metrics, &context, NULL) == PROSPECT_OK, "a step");
  check(metrics.total > 0.4 && metrics.total < 0.6 && metrics.size > 0, "its loss");
}

static void weights_and_average(void) {
  prospect_class_weights w;
  check(prospect_propose_class_weights(1, 10, PROSPECT_THREE_HALVES, &w, NULL) == PROSPECT_OK, "w");
  check(near(w.desirable_low, 10) && near(w.desirable_high, 15) && w.undesirable_low == 1, "1:10");
  check(prospect_propose_class_weights(0, 10, PROSPECT_THREE_HALVES, &w, NULL) ==
            PROSPECT_INVALID_ARGUMENT,
        "empty class");
  prospect_ema ema = {0.5, 0, 0};
  const prospect_observation seen = {.sum = 6, .count = 3};
  prospect_reference_point point;
  check(prospect_ema_add(&ema, seen, NULL) == PROSPECT_OK, "ema");
  check(prospect_ema_point(&ema, &point, NULL) == PROSPECT_OK && near(point.z, 2),
        "the first observation is unbiased");
  ema.decay = 1;
  check(prospect_ema_add(&ema, seen, NULL) == PROSPECT_INVALID_ARGUMENT, "decay of 1");
}

int main(void) {
  float logits[rows * vocabulary], again[rows * vocabulary];
  for (int i = 0; i < rows * vocabulary; ++i) again[i] = logits[i] = (float)sin(1.0 + i);
  rows_say_what_they_are();
  list_losses();
  errors_have_sentences();
  dpo_by_name();
  kto_from_logits(logits);
  kto_in_one_call(again);
  check(memcmp(logits, again, sizeof logits) == 0, "the parts and the whole agree to the bit");
  weights_and_average();
  prospect_shutdown();
  for (int i = 0; i < rows * vocabulary; ++i) again[i] = (float)sin(1.0 + i);
  kto_in_one_call(again);
  check(memcmp(logits, again, sizeof logits) == 0, "the same without the library's threads");
  if (failures == 0) printf("all checks passed\n");
  return failures;
}
