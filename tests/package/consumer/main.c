/* DPO on two pairs through the C API of the archive. At step 0 policy and reference agree: the loss
 * is log 2 and the coefficient of a chosen completion -beta/2, here over a mean of two. */
#include <prospect/c/prospect.h>

#include <math.h>
#include <stdio.h>

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
  prospect_metrics metrics;
  PROSPECT_INIT(metrics);
  if (prospect_pairs_cpu(&loss, &pairs, &metrics, NULL, &error) != PROSPECT_OK) {
    puts(error.message);
    return 1;
  }

  printf("loss %.6f, coefficient %.6f\n", metrics.total, d_chosen[0]);
  return fabs(metrics.total - log(2.0)) < 1e-6 && fabs(d_chosen[0] + 0.025) < 1e-8 ? 0 : 1;
}
