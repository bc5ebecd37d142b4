/* A trainer in C11 that knows Prospect by its archive alone: a table of bigrams, thumbs for its
 * answers, and KTO with a reference point measured in every step, or another loss of thumbs by
 * name. Looks at its own gradient before it trains on. usage: c [LOSS]    kto by default */
#include <prospect/c/prospect.h>

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { vocabulary = 12, length = 8, prompt = 3, sequences = 16 };
enum { rows = sequences * length, cells = rows * vocabulary, weights = vocabulary * vocabulary };

/* Token ids are [sequences, length]; row t of the logits predicts token t + 1. */
typedef struct batch {
  int32_t ids[rows];
  int32_t targets[rows]; /* -100: prompt, padding and ends, which are not scored */
  bool liked[sequences];
} batch;

/* Row s has prompt s and the completion of row answer(s). Liked ones count upwards, the others jump
 * about and are shorter. */
static void fill(batch* b, int64_t (*answer)(int64_t)) {
  for (int i = 0; i < rows; ++i) {
    const int s = i / length, t = i % length, from = (int)answer(s);
    const bool liked = from % 2 == 0;
    b->ids[i] = t < prompt ? (s + t) % vocabulary
                : liked    ? (from + t) % vocabulary
                           : (7 * t + 5 * from) % vocabulary;
    b->targets[i] = -100;
    if (t >= prompt && t < (liked ? length : length - 1 - from % 3)) b->targets[i - 1] = b->ids[i];
    b->liked[s] = s % 2 == 0;
  }
}
static int64_t its_own(int64_t s) { return s; }
static int64_t of_another(int64_t s) { return prospect_mismatched_row(s, sequences); }

/* log p of sequences, in nats: what KTO measures the policy against. */
typedef struct scores {
  double reference[sequences];            /* by the frozen model */
  double mismatched_policy[sequences];    /* of the mismatched batch, by the model ... */
  double mismatched_reference[sequences]; /* ... and by the frozen one */
} scores;

static void forward(const float* table, const batch* b, float* logits) {
  for (int i = 0; i < rows; ++i) {
    memcpy(logits + i * vocabulary, table + b->ids[i] * vocabulary, vocabulary * sizeof(float));
  }
}
static void backward(const float* d_logits, const batch* b, float* d_table) {
  memset(d_table, 0, weights * sizeof(float));
  for (int i = 0; i < cells; ++i) {
    d_table[b->ids[i / vocabulary] * vocabulary + i % vocabulary] += d_logits[i];
  }
}

/* glue begin */
static prospect_tokens tokens_of(const batch* b) {
  static const prospect_layout layout = {
      .struct_size = sizeof layout, .sequences = sequences, .length = length};
  prospect_tokens tokens;
  PROSPECT_INIT(tokens);
  tokens.targets = PROSPECT_ROW(b->targets, rows);
  tokens.layout = &layout;
  return tokens;
}
/* log p of each sequence. */
static bool score(const float* logits, const batch* b, double* sums, prospect_error* error) {
  float log_prob[rows] = {0};
  const prospect_row p = PROSPECT_ROW(log_prob, rows), to = PROSPECT_ROW(sums, sequences);
  const prospect_token_results results = {.struct_size = sizeof results, .log_prob = p};
  const prospect_tokens tokens = tokens_of(b);
  return prospect_token_log_probs_cpu(PROSPECT_MATRIX(logits, rows, vocabulary), &tokens, &results,
                                      NULL, error) == PROSPECT_OK &&
         prospect_sequence_sums_cpu(&tokens, p, to, (prospect_row){0}, NULL, error) == PROSPECT_OK;
}
/* Logits become the gradient of the loss. */
static bool step(float* logits, const batch* b, const scores* of, const prospect_loss* loss,
                 prospect_metrics* metrics, prospect_error* error) {
  double scratch[1024]; /* a query says how much it takes: see prospect_context */
  const prospect_context context = {
      .struct_size = sizeof context, .scratch = scratch, .scratch_size = sizeof scratch};
  const prospect_tokens tokens = tokens_of(b);
  const prospect_completions thumbs = {
      .struct_size = sizeof thumbs,
      .reference_point = PROSPECT_BATCH_MEAN,
      .reference = PROSPECT_ROW(of->reference, sequences),
      .desirable = PROSPECT_ROW(b->liked, sequences),
      .mismatched_policy = PROSPECT_ROW(of->mismatched_policy, sequences),
      .mismatched_reference = PROSPECT_ROW(of->mismatched_reference, sequences)};
  const prospect_step all = {.struct_size = sizeof all,
                             .logits = PROSPECT_MATRIX(logits, rows, vocabulary),
                             .tokens = &tokens,
                             .loss = loss,
                             .completions = &thumbs};
  return prospect_step_cpu(&all, metrics, &context, error) == PROSPECT_OK;
}
/* glue end */

/* ---- The textbook's KTO in double, whose differences the gradient is held against ---------------
 */

static void textbook_scores(const double* table, const batch* b, double* sums) {
  memset(sums, 0, sequences * sizeof *sums);
  for (int i = 0; i < rows; ++i) {
    if (b->targets[i] < 0) continue;
    const double* row = table + b->ids[i] * vocabulary;
    double sum = 0;
    for (int v = 0; v < vocabulary; ++v) sum += exp(row[v]);
    sums[i / length] += row[b->targets[i]] - log(sum);
  }
}

/* z is a number: no gradient flows through it. */
static double textbook_loss(const double* table, const batch* b, const double* reference,
                            double z) {
  double policy[sequences], loss = 0;
  textbook_scores(table, b, policy);
  for (int s = 0; s < sequences; ++s) {
    const double reward = 0.1 * (policy[s] - reference[s] - z);
    loss += (1 - 1 / (1 + exp(b->liked[s] ? -reward : reward))) / sequences;
  }
  return loss;
}

static double off_from_textbook(const float* table, const batch* b, const batch* mismatched,
                                const scores* of, const float* d_table, double loss) {
  double exact[weights], others[sequences], z = 0, off = 0;
  for (int i = 0; i < weights; ++i) exact[i] = table[i];
  textbook_scores(exact, mismatched, others);
  for (int s = 0; s < sequences; ++s) z += (others[s] - of->mismatched_reference[s]) / sequences;
  z = fmax(0, z);
  off = fabs(textbook_loss(exact, b, of->reference, z) - loss);
  for (int i = 0; i < weights; ++i) {
    exact[i] = table[i] + 1e-4;
    const double up = textbook_loss(exact, b, of->reference, z);
    exact[i] = table[i] - 1e-4;
    const double down = textbook_loss(exact, b, of->reference, z);
    exact[i] = table[i];
    off = fmax(off, fabs((up - down) / 2e-4 - d_table[i]));
  }
  return off;
}

static float table[weights], logits[cells], d_table[weights];
static scores known;

int main(int count, char** arguments) {
  const char* name = count > 1 ? arguments[1] : "kto";
  prospect_error error = {""};
  prospect_loss loss;
  batch own, mismatched;
  fill(&own, its_own);
  fill(&mismatched, of_another);
  for (int i = 0; i < weights; ++i) table[i] = (float)sin(3.0 * i);

  bool fine = prospect_loss_init(&loss, name, &error) == PROSPECT_OK;
  forward(table, &own, logits); /* the frozen model's, once */
  fine = fine && score(logits, &own, known.reference, &error);
  forward(table, &mismatched, logits);
  fine = fine && score(logits, &mismatched, known.mismatched_reference, &error);

  const bool known_here = strcmp(name, "kto") == 0;
  double first = 0, last = 0, off = 0, z = 0, desirable = 0, undesirable = 0;
  for (int at = 0; fine && at <= 60; ++at) {
    prospect_metric room[16];
    prospect_metrics metrics = {.struct_size = sizeof metrics, .metric = room, .capacity = 16};
    forward(table, &mismatched, logits);
    fine = score(logits, &mismatched, known.mismatched_policy, &error);
    forward(table, &own, logits);
    fine = fine && step(logits, &own, &known, &loss, &metrics, &error);
    if (!fine) break;
    backward(logits, &own, d_table);
    last = metrics.total;
    if (at == 0) first = last;
    if (at == 5 && known_here) {
      off = off_from_textbook(table, &own, &mismatched, &known, d_table, last);
    }
    (void)prospect_metric_get(&metrics, "kl", &z); /* absent where the loss reads none */
    (void)prospect_metric_get(&metrics, "rewards/chosen", &desirable);
    (void)prospect_metric_get(&metrics, "rewards/rejected", &undesirable);
    if (at % 20 == 0) {
      printf("step %2d  %s %.4f  z %.3f  rewards %.3f (liked) %.3f\n", at, name, last, z, desirable,
             undesirable);
    }
    for (int i = 0; i < weights; ++i) table[i] -= 20 * d_table[i];
  }
  if (!fine) {
    printf("%s\n", error.message);
    return 2;
  }
  const bool right = off < 1e-6 && last < first && desirable > 0 && undesirable < 0;
  if (known_here) printf("loss and gradient within %.1e of the textbook\n", off);
  puts(right ? "right" : "WRONG");
  return right ? 0 : 1;
}
