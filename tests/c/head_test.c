/* A C11 program that trains a LoRA on the last layer of a model through the archive: hidden states
 * to log-probabilities, DPO on pairs of sequences, and back through the head; in parts, and in one
 * go with a callback. Returns the number of things that were wrong. */
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

enum {
  sequences = 4,
  length = 3,
  tokens = sequences * length,
  width = 5,
  vocabulary = 11,
  rank = 2
};

static float hidden[tokens * width], weight[vocabulary * width], bias[vocabulary];
static float lora_a[rank * width], lora_b[vocabulary * rank];
static const float scale = 0.5F;
static int64_t targets[tokens];
static const double reference[sequences] = {-7, -8, -6, -7};

static void fill(void) {
  for (int i = 0; i < tokens * width; ++i) hidden[i] = (float)sin(1.0 + i);
  for (int i = 0; i < vocabulary * width; ++i) weight[i] = (float)cos(2.0 + 3 * i);
  for (int i = 0; i < vocabulary; ++i) bias[i] = (float)sin(0.3 * i);
  for (int i = 0; i < rank * width; ++i) lora_a[i] = (float)sin(5.0 * i);
  for (int i = 0; i < vocabulary * rank; ++i) lora_b[i] = (float)cos(7.0 * i);
  for (int t = 0; t < tokens; ++t) targets[t] = t % length == 0 ? -100 : (5 * t) % vocabulary;
}

/* The textbook: W + scale B A, and every logit. */
static double log_prob_of(int t) {
  double z[vocabulary], highest = -INFINITY, sum = 0;
  for (int v = 0; v < vocabulary; ++v) {
    z[v] = bias[v];
    for (int k = 0; k < width; ++k) {
      double w = weight[v * width + k];
      for (int r = 0; r < rank; ++r) w += scale * lora_b[v * rank + r] * lora_a[r * width + k];
      z[v] += w * hidden[t * width + k];
    }
    highest = fmax(highest, z[v]);
  }
  for (int v = 0; v < vocabulary; ++v) sum += exp(z[v] - highest);
  return z[targets[t]] - highest - log(sum);
}

static int close(const float* a, const float* b, int count) {
  int wrong = 0;
  for (int i = 0; i < count; ++i) wrong += !(fabsf(a[i] - b[i]) <= 1e-6F);
  return wrong == 0;
}

/* DPO on pairs of neighbours. */
static double loss_of(void) {
  double p[sequences] = {0}, loss = 0;
  for (int t = 0; t < tokens; ++t) {
    if (targets[t] >= 0) p[t / length] += log_prob_of(t);
  }
  for (int i = 0; i < sequences; i += 2) {
    const double margin = (p[i] - reference[i]) - (p[i + 1] - reference[i + 1]);
    loss += log1p(exp(-0.1 * margin)) / (sequences / 2);
  }
  return loss;
}

static void check_slopes(float* parameter, const float* gradient, int count, const char* what) {
  int wrong = 0;
  for (int i = 0; i < count; ++i) {
    const float here = parameter[i], h = 1.0F / 64;
    parameter[i] = here + h;
    const double above = loss_of();
    parameter[i] = here - h;
    const double below = loss_of();
    parameter[i] = here;
    wrong += fabs((above - below) / (2 * h) - gradient[i]) > 2e-5;
  }
  check(wrong == 0, what);
}

static prospect_loss loss;
static prospect_layout layout;
static prospect_tokens batch;
static float log_prob[tokens], d_token[tokens];
static double lse[tokens], sums[sequences], d_sums[sequences];

/* Sequences [first, last): log-probs to sums, their loss, and its coefficients back to the tokens.
 */
static prospect_status coefficients_of(void* context, int64_t first, int64_t last) {
  ++*(int*)context;
  const int64_t n = last - first, rows = n * length;
  prospect_layout part = layout;
  part.sequences = n;
  prospect_tokens some = batch;
  some.layout = &part;
  some.targets = prospect_row_slice(batch.targets, first * length, rows);
  prospect_row p = PROSPECT_ROW(sums + first, n), d = PROSPECT_ROW(d_sums + first, n);
  prospect_status status = prospect_sequence_sums_cpu(
      &some, PROSPECT_ROW(log_prob + first * length, rows), p, (prospect_row){0}, NULL, NULL);
  if (status != PROSPECT_OK) return status;
  prospect_row q = PROSPECT_ROW(reference + first, n);
  prospect_pairs pairs;
  PROSPECT_INIT(pairs);
  pairs.normaliser = PROSPECT_OVER; /* of the whole batch, whatever part this is */
  pairs.count = sequences / 2;
  prospect_row* const rows_of_sides[] = {&pairs.policy_chosen,    &pairs.policy_rejected,
                                         &pairs.reference_chosen, &pairs.reference_rejected,
                                         &pairs.d_policy_chosen,  &pairs.d_policy_rejected};
  const prospect_row whole[] = {p, q, d};
  for (int side = 0; side < 6; ++side) { /* neighbours: every other one */
    prospect_row row = prospect_row_slice(whole[side / 2], side % 2, n / 2);
    row.stride = 2;
    *rows_of_sides[side] = row;
  }
  status = prospect_pairs_cpu(&loss, &pairs, NULL, NULL, NULL);
  if (status != PROSPECT_OK) return status;
  return prospect_spread_cpu(&some, d, PROSPECT_ROW(d_token + first * length, rows), NULL, NULL);
}

int main(void) {
  fill();
  prospect_error error = {""};
  prospect_head_workspace* workspace = NULL;
  prospect_head_ticket* ticket = NULL;
  check(prospect_head_workspace_create(1 << 20, &workspace, &error) == PROSPECT_OK, "a workspace");
  check(prospect_head_ticket_create(&ticket, &error) == PROSPECT_OK, "a ticket");
  check(prospect_loss_init(&loss, "dpo", &error) == PROSPECT_OK, "a loss");

  PROSPECT_INIT(layout);
  layout.sequences = sequences;
  layout.length = length;
  PROSPECT_INIT(batch);
  batch.targets = PROSPECT_ROW(targets, tokens);
  batch.layout = &layout;
  prospect_head head;
  PROSPECT_INIT(head);
  head.weight = PROSPECT_MATRIX(weight, vocabulary, width);
  head.bias = PROSPECT_ROW(bias, vocabulary);
  head.lora.a = PROSPECT_MATRIX(lora_a, rank, width);
  head.lora.b = PROSPECT_MATRIX(lora_b, vocabulary, rank);
  head.lora.scale = scale;
  prospect_token_results results;
  PROSPECT_INIT(results);
  results.log_prob = PROSPECT_ROW(log_prob, tokens);
  results.lse = PROSPECT_ROW(lse, tokens);
  const prospect_matrix states = PROSPECT_MATRIX(hidden, tokens, width);

  /* In parts: forward, loss, backward. The weight is frozen: no gradient of it. */
  const prospect_status forward = prospect_head_log_probs_cpu(states, &head, &batch, &results,
                                                              ticket, 1, workspace, NULL, &error);
  if (forward == PROSPECT_UNSUPPORTED && strstr(error.message, "without Eigen") != NULL) {
    printf("skipped: %s\n", error.message);
    return failures;
  }
  check(forward == PROSPECT_OK, "log-probs");
  check(prospect_head_ticket_kept(ticket) > 0, "their gradients are kept");
  for (int t = 0; t < tokens; ++t) {
    check(fabs(log_prob[t] - (targets[t] < 0 ? 0 : log_prob_of(t))) < 1e-5, "a log-prob");
  }
  int calls = 0;
  check(coefficients_of(&calls, 0, sequences) == PROSPECT_OK, "coefficients");

  float d_hidden[tokens * width], d_a[rank * width], d_b[vocabulary * rank];
  prospect_head_gradients gradients;
  PROSPECT_INIT(gradients);
  gradients.hidden = PROSPECT_MATRIX(d_hidden, tokens, width);
  gradients.lora_a = PROSPECT_MATRIX(d_a, rank, width);
  gradients.lora_b = PROSPECT_MATRIX(d_b, vocabulary, rank);
  prospect_token_coefficients back;
  PROSPECT_INIT(back);
  back.log_prob = results.log_prob;
  back.lse = results.lse;
  back.d_token = PROSPECT_ROW(d_token, tokens);
  check(prospect_head_gradient_cpu(states, &head, &batch, &back, &gradients, ticket, workspace,
                                   NULL, &error) == PROSPECT_OK,
        "gradients");
  check_slopes(hidden, d_hidden, tokens * width, "the gradient of the hidden states");
  check_slopes(lora_a, d_a, rank * width, "the gradient of A");
  check_slopes(lora_b, d_b, vocabulary * rank, "the gradient of B");

  /* The same in one go. */
  float e_hidden[tokens * width], e_a[rank * width], e_b[vocabulary * rank];
  memset(d_token, 0xff, sizeof d_token);
  gradients.hidden = PROSPECT_MATRIX(e_hidden, tokens, width);
  gradients.lora_a = PROSPECT_MATRIX(e_a, rank, width);
  gradients.lora_b = PROSPECT_MATRIX(e_b, vocabulary, rank);
  back.log_prob = back.lse = (prospect_row){0};
  prospect_head_step step;
  PROSPECT_INIT(step);
  step.hidden = states;
  step.head = &head;
  step.tokens = &batch;
  step.group = 2;
  step.results = &results;
  step.ready.context = &calls;
  step.ready.ready = coefficients_of;
  step.coefficients = &back;
  step.gradients = &gradients;
  step.workspace = workspace;
  check(prospect_head_step_cpu(&step, NULL, &error) == PROSPECT_OK, "a step");
  check(calls >= 2, "it asked for coefficients");
  check(close(d_hidden, e_hidden, tokens * width) && close(d_a, e_a, rank * width) &&
            close(d_b, e_b, vocabulary * rank),
        "the parts and the whole agree");

  prospect_head_ticket_destroy(ticket);
  prospect_head_workspace_destroy(workspace);
  prospect_shutdown();
  if (failures == 0) printf("all checks passed\n");
  return failures;
}
