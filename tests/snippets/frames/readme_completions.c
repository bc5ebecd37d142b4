/* frame of README.md, with prospect_completions_cpu(&loss, &batch */
#include <prospect/c/prospect.h>

#include "frame.h"

int main(void) {
  const double policy[] = {-10, -20}, reference[] = {-11, -18};
  const uint8_t desirable[] = {1, 0};
  double losses[2];
  prospect_metric listed[16];
  prospect_error error = {""};
  prospect_metrics metrics = {.struct_size = sizeof metrics, .metric = listed, .capacity = 16};
  const prospect_completions batch = {.struct_size = sizeof batch,
                                      .policy = PROSPECT_ROW(policy, 2),
                                      .reference = PROSPECT_ROW(reference, 2),
                                      .desirable = PROSPECT_ROW(desirable, 2),
                                      .loss = PROSPECT_ROW(losses, 2)};
  /* here */
  REQUIRE(error.message[0] == '\0');
  REQUIRE(near(losses[0], 1.33 / (1 + exp(0.1 * 1))));
  REQUIRE(near(losses[1], 1 / (1 + exp(0.1 * 2))));
  REQUIRE(near(metrics.total, (losses[0] + losses[1]) / 2));
  return 0;
}
