/* A C11 program that does what a trainer does through the archive: logits to log-probabilities,
 * sums, KTO with a measured reference point, DPO by name, and the gradient back into the logits.
 * Returns the number of things that were wrong. */
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

static prospect_const_row in(const void* data, int64_t size) {
  return (prospect_const_row){data, size, 1};
}
static prospect_row out(void* data, int64_t size) { return (prospect_row){data, size, 1}; }

static void list_losses(void) {
  check(prospect_version() > 0, "there is a version");
  check(prospect_loss_count() >= 7, "at least the first seven losses");
  check(prospect_loss_name(-1) == NULL && prospect_loss_name(99) == NULL, "names end");
  for (int32_t i = 0; i < prospect_loss_count(); ++i) {
    prospect_loss loss;
    check(prospect_loss_init(&loss, prospect_loss_name(i), NULL) == PROSPECT_OK, "init by name");
    check(loss.id == i, "id is the position");
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
  check(prospect_pairs_cpu(&loss, &pairs, NULL, &error) == PROSPECT_INVALID_ARGUMENT,
        "struct_size must be set");
  check(prospect_pairs_cpu(&loss, NULL, NULL, &error) == PROSPECT_INVALID_ARGUMENT, "NULL pairs");
  check(strcmp(prospect_status_string(PROSPECT_UNKNOWN_NAME), "unknown name") == 0,
        "status string");
}

static void dpo_by_name(void) {
  const float pc[2] = {-10, -20}, pr[2] = {-12, -19}, rc[2] = {-11, -19}, rr[2] = {-11, -20};
  float loss_i[2], dc[2], dr[2];
  prospect_loss loss;
  prospect_loss_init(&loss, "dpo", NULL);
  prospect_loss_set(&loss, "beta", 0.5, NULL);
  prospect_metrics metrics = {.struct_size = sizeof metrics};
  const prospect_pairs pairs = {.struct_size = sizeof pairs,
                                .dtype = PROSPECT_F32,
                                .normaliser = PROSPECT_OVER,
                                .count = 4,
                                .policy_chosen = in(pc, 2),
                                .policy_rejected = in(pr, 2),
                                .reference_chosen = in(rc, 2),
                                .reference_rejected = in(rr, 2),
                                .loss = out(loss_i, 2),
                                .d_policy_chosen = out(dc, 2),
                                .d_policy_rejected = out(dr, 2)};
  check(prospect_pairs_cpu(&loss, &pairs, &metrics, NULL) == PROSPECT_OK, "dpo evaluates");
  for (int i = 0; i < 2; ++i) {
    const double m = 0.5 * ((pc[i] - rc[i]) - (pr[i] - rr[i]));
    check(near(loss_i[i], log1p(exp(-m))), "dpo loss");
    check(near(dc[i], -0.5 / (1 + exp(m)) / 4) && dc[i] == -dr[i], "dpo coefficient");
  }
  check(strcmp(metrics.metric[0].name, "loss") == 0 && metrics.metric[0].count == 2, "metrics");
  check(near(metrics.total, ((double)loss_i[0] + loss_i[1]) / 4), "total");
  check(metrics.first_nonfinite == -1, "all finite");
}

static void kto_from_logits(void) {
  enum { tokens = 6, sequences = 2, vocabulary = 5 };
  float logits[tokens * vocabulary];
  for (int i = 0; i < tokens * vocabulary; ++i) logits[i] = (float)sin(1.0 + i);
  const int64_t target[tokens] = {-100, 3, 1, -100, 0, 4};
  const int32_t offset[sequences + 1] = {0, 3, 6};
  const prospect_logits view = {logits, tokens, vocabulary, vocabulary, PROSPECT_F32, 0};
  const prospect_indices targets = {in(target, tokens), PROSPECT_I64, 0};
  const prospect_layout layout = {.offsets = {in(offset, sequences + 1), PROSPECT_I32, 0}};
  float log_prob[tokens], d_token[tokens];
  double lse[tokens], policy[sequences], d_policy[sequences];
  int32_t n[sequences];
  check(prospect_token_log_probs_cpu(&view, &targets, NULL, out(log_prob, tokens), out(lse, tokens),
                                     NULL, NULL) == PROSPECT_OK,
        "log-probs");
  check(prospect_sequence_sums_cpu(PROSPECT_F32, in(log_prob, tokens), &targets, &layout,
                                   out(policy, sequences), out(n, sequences), NULL) == PROSPECT_OK,
        "sums");
  check(n[0] == 2 && n[1] == 2, "two scored tokens each");
  check(near(policy[0], (double)log_prob[1] + log_prob[2]), "sum of scored tokens");

  const double reference[sequences] = {-4, -4}, kl_policy[2] = {-3, -5},
               kl_reference[2] = {-4, -4.5};
  prospect_sum_count seen;
  check(prospect_mismatched_kl_cpu(PROSPECT_F64, in(kl_policy, 2), in(kl_reference, 2), in(NULL, 0),
                                   &seen, NULL) == PROSPECT_OK,
        "kl");
  const prospect_reference_point point = prospect_reference_point_from(seen);
  check(near(point.z, 0.25) && point.z == point.raw, "z is the mean log-ratio");
  check(prospect_mismatched_row(2, 3) == 0 && prospect_mismatched_row(0, 1) == -1, "rotation");

  const uint8_t desirable[sequences] = {1, 0};
  prospect_loss loss;
  prospect_loss_init(&loss, "kto", NULL);
  const prospect_completions c = {.struct_size = sizeof c,
                                  .dtype = PROSPECT_F64,
                                  .z = point.z,
                                  .z_raw = point.raw,
                                  .policy = in(policy, sequences),
                                  .reference = in(reference, sequences),
                                  .desirable = in(desirable, sequences),
                                  .tokens = in(n, sequences),
                                  .d_policy = out(d_policy, sequences)};
  check(prospect_completions_cpu(&loss, &c, NULL, NULL) == PROSPECT_OK, "kto");
  for (int i = 0; i < sequences; ++i) {
    const double sign = desirable[i] ? 1 : -1, u = sign * 0.1 * (policy[i] + 4 - point.z);
    check(near(d_policy[i], -sign * 0.1 * exp(-u) / pow(1 + exp(-u), 2) / 2), "kto coefficient");
  }

  check(prospect_spread_cpu(PROSPECT_F32, in(d_policy, sequences), &targets, &layout,
                            out(d_token, tokens), NULL) == PROSPECT_OK,
        "spread");
  check(prospect_logits_gradient_cpu(&view, &targets, NULL, in(log_prob, tokens), in(lse, tokens),
                                     in(d_token, tokens), NULL) == PROSPECT_OK,
        "gradient");
  for (int t = 0; t < tokens; ++t) {
    double row = 0, absolute = 0;
    for (int v = 0; v < vocabulary; ++v) {
      row += logits[t * vocabulary + v];
      absolute += fabs(logits[t * vocabulary + v]);
    }
    check(fabs(row) < 1e-7, "gradient rows sum to 0");
    check((absolute > 0) == (target[t] != -100), "only scored rows have a gradient");
  }
}

static void weights_and_average(void) {
  prospect_class_weights w;
  check(prospect_propose_class_weights(1, 10, PROSPECT_THREE_HALVES, &w, NULL) == PROSPECT_OK, "w");
  check(near(w.desirable_low, 10) && near(w.desirable_high, 15) && w.undesirable_low == 1, "1:10");
  check(prospect_propose_class_weights(0, 10, PROSPECT_THREE_HALVES, &w, NULL) ==
            PROSPECT_INVALID_ARGUMENT,
        "empty class");
  prospect_ema ema = {0.5, 0, 0};
  check(prospect_ema_add(&ema, (prospect_sum_count){6, 3}, NULL) == PROSPECT_OK, "ema");
  check(near(prospect_ema_point(&ema).z, 2), "the first observation is unbiased");
  ema.decay = 1;
  check(prospect_ema_add(&ema, (prospect_sum_count){6, 3}, NULL) == PROSPECT_INVALID_ARGUMENT,
        "decay of 1");
}

int main(void) {
  list_losses();
  errors_have_sentences();
  dpo_by_name();
  kto_from_logits();
  weights_and_average();
  if (failures == 0) printf("all checks passed\n");
  return failures;
}
