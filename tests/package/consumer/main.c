/* DPO on two pairs through the C API of the archive. At step 0 policy and reference agree: the loss
 * is log 2 and the coefficient of a chosen completion -beta/2, here over a mean of two. Then what
 * an archive breaks first that was built under -ffast-math: a log-probability, and a NaN that is
 * seen. */
#include <prospect/c/prospect.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

int main(void) {
  const float chosen[2] = {-12.5f, -3.0f};
  const float rejected[2] = {-11.0f, -7.25f};
  float d_chosen[2];

  prospect_error error;
  prospect_loss loss;
  if (prospect_loss_init(&loss, "dpo", &error) != PROSPECT_OK ||
      prospect_loss_set(&loss, "beta", 0.1, &error) != PROSPECT_OK) {
    puts(error.message);
    return 1;
  }

  prospect_pairs pairs;
  PROSPECT_INIT(pairs);
  pairs.policy_chosen = pairs.reference_chosen = PROSPECT_ROW(chosen, 2);
  pairs.policy_rejected = pairs.reference_rejected = PROSPECT_ROW(rejected, 2);
  pairs.d_policy_chosen = PROSPECT_ROW(d_chosen, 2);
  prospect_metric named[16];
  prospect_metrics metrics;
  PROSPECT_INIT(metrics);
  metrics.metric = named;
  metrics.capacity = 16;
  if (prospect_pairs_cpu(&loss, &pairs, &metrics, NULL, &error) != PROSPECT_OK) {
    puts(error.message);
    return 1;
  }

  printf("loss %.6f, coefficient %.6f\n", metrics.total, d_chosen[0]);
  if (!(fabs(metrics.total - log(2.0)) < 1e-6 && fabs(d_chosen[0] + 0.025) < 1e-8)) return 1;

  const float logits[4] = {1, 2, 3, 4};
  const int32_t target[1] = {2};
  float log_prob[1];
  prospect_tokens tokens;
  PROSPECT_INIT(tokens);
  tokens.targets = PROSPECT_ROW(target, 1);
  prospect_token_results results;
  PROSPECT_INIT(results);
  results.log_prob = PROSPECT_ROW(log_prob, 1);
  if (prospect_token_log_probs_cpu(PROSPECT_MATRIX(logits, 1, 4), &tokens, &results, NULL,
                                   &error) != PROSPECT_OK) {
    puts(error.message);
    return 1;
  }
  printf("log p %.7f\n", log_prob[0]);
  if (!(fabs(log_prob[0] + 1.4401897) < 1e-6)) return 1;

  const float spoilt[2] = {strtof("nan", NULL), -3.0f};
  pairs.policy_chosen = PROSPECT_ROW(spoilt, 2);
  if (prospect_pairs_cpu(&loss, &pairs, &metrics, NULL, &error) != PROSPECT_OK) {
    puts(error.message);
    return 1;
  }
  double share = 0;
  prospect_metric_get(&metrics, "nonfinite", &share);
  printf("not finite: %.1f of the pairs, from %d on\n", share, (int)metrics.first_nonfinite);
  return share > 0.4 && share < 0.6 && metrics.first_nonfinite == 0 ? 0 : 1;
}
