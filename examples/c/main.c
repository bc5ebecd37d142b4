/* A trainer in C11 that knows Prospect by its archive alone: a table of bigrams, thumbs for its
 * answers, and KTO with a reference point measured in every step, or another loss of thumbs by
 * name. Holds itself against the textbook where it knows the loss: kto, kto_zero and bco.
 * usage: c [LOSS]    kto by default */
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
static int64_t of_another(int64_t s) { return (s + 1) % sequences; }

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
static prospect_loss loss;
static prospect_error error; /* after a call that was not PROSPECT_OK */
static prospect_metric logged[16];
static prospect_metrics metrics = {.struct_size = sizeof metrics, .metric = logged, .capacity = 16};
static const char* const names[] = {"kl", "rewards/chosen", "rewards/rejected"};
static double means[3]; /* one that the loss does not have stays 0 */

const prospect_layout grid = {.struct_size = sizeof grid, .sequences = sequences, .length = length};
static const prospect_tokens* tokens_of(const batch* b) {
  static prospect_tokens tokens = {.struct_size = sizeof tokens, .layout = &grid};
  tokens.targets = PROSPECT_ROW(b->targets, rows);
  return &tokens;
}
/* log p of each sequence. */
static bool score(const float* logits, const batch* b, double* sums) {
  float log_prob[rows] = {0};
  const prospect_row p = PROSPECT_ROW(log_prob, rows), to = PROSPECT_ROW(sums, sequences);
  const prospect_token_results results = {.struct_size = sizeof results, .log_prob = p};
  const prospect_matrix matrix = PROSPECT_MATRIX(logits, rows, vocabulary);
  return !prospect_token_log_probs_cpu(matrix, tokens_of(b), &results, NULL, &error) &&
         !prospect_sequence_sums_cpu(tokens_of(b), p, to, (prospect_row){0}, NULL, &error);
}
/* Logits become the gradient of the loss. */
static bool step(float* logits, const batch* b, const scores* of) {
  /* A query says how much scratch memory it takes: see prospect_context. */
  const prospect_context on = {
      .struct_size = sizeof on, .scratch = (double[1024]){0}, .scratch_size = sizeof(double[1024])};
  const prospect_completions thumbs = {
      .struct_size = sizeof thumbs,
      .reference_point = PROSPECT_BATCH_MEAN,
      .reference = PROSPECT_ROW(of->reference, sequences),
      .desirable = PROSPECT_ROW(b->liked, sequences),
      .mismatched_policy = PROSPECT_ROW(of->mismatched_policy, sequences),
      .mismatched_reference = PROSPECT_ROW(of->mismatched_reference, sequences)};
  const prospect_step all = {.struct_size = sizeof all,
                             .logits = PROSPECT_MATRIX(logits, rows, vocabulary),
                             .tokens = tokens_of(b),
                             .loss = &loss,
                             .completions = &thumbs};
  if (prospect_step_cpu(&all, &metrics, &on, &error)) return false;
  for (int i = 0; i < 3; ++i) (void)prospect_metric_get(&metrics, names[i], &means[i]);
  return true;
}
/* glue end */

/* ---- The textbook in double, whose differences the gradient is held against ------------------ */

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

/* KTO's losses, BCO's logarithmic one. z is a number: no gradient flows through it. */
static double textbook_loss(bool logarithmic, const double* table, const batch* b,
                            const double* reference, double z) {
  double policy[sequences], total = 0;
  textbook_scores(table, b, policy);
  for (int s = 0; s < sequences; ++s) {
    const double reward = 0.1 * (policy[s] - reference[s] - z), u = b->liked[s] ? reward : -reward;
    total += (logarithmic ? log(1 + exp(-u)) : 1 / (1 + exp(u))) / sequences;
  }
  return total;
}

static bool known_here(const char* name) {
  return strcmp(name, "kto") == 0 || strcmp(name, "kto_zero") == 0 || strcmp(name, "bco") == 0;
}

/* Of the loss, and of the gradient relative to its largest element: whichever is further off. */
static double off_from_textbook(const char* name, const float* table, const batch* b,
                                const batch* mismatched, const scores* of, const float* d_table,
                                double total) {
  const bool logarithmic = strcmp(name, "bco") == 0;
  double exact[weights], others[sequences], z = 0, furthest = 0, largest = 0;
  for (int i = 0; i < weights; ++i) exact[i] = table[i];
  textbook_scores(exact, mismatched, others);
  for (int s = 0; s < sequences; ++s) z += (others[s] - of->mismatched_reference[s]) / sequences;
  z = strcmp(name, "kto_zero") == 0 ? 0 : fmax(0, z);
  const double loss_off = fabs(textbook_loss(logarithmic, exact, b, of->reference, z) / total - 1);
  for (int i = 0; i < weights; ++i) {
    exact[i] = table[i] + 1e-4;
    const double up = textbook_loss(logarithmic, exact, b, of->reference, z);
    exact[i] = table[i] - 1e-4;
    const double down = textbook_loss(logarithmic, exact, b, of->reference, z);
    exact[i] = table[i];
    furthest = fmax(furthest, fabs((up - down) / 2e-4 - d_table[i]));
    largest = fmax(largest, fabs((up - down) / 2e-4));
  }
  return fmax(loss_off, furthest / largest);
}

static float table[weights], logits[cells], d_table[weights];
static scores known;

int main(int count, char** arguments) {
  const char* name = count > 1 ? arguments[1] : "kto";
  batch own, mismatched;
  fill(&own, its_own);
  fill(&mismatched, of_another);
  for (int i = 0; i < weights; ++i) table[i] = (float)sin(3.0 * i);

  /* glue begin */
  bool fine = prospect_loss_init(&loss, name, &error) == PROSPECT_OK;
  /* glue end */
  forward(table, &own, logits); /* the frozen model's, once */
  fine = fine && score(logits, &own, known.reference);
  forward(table, &mismatched, logits);
  fine = fine && score(logits, &mismatched, known.mismatched_reference);

  double first = 0, off = 0;
  for (int at = 0; fine && at <= 60; ++at) {
    forward(table, &mismatched, logits);
    fine = score(logits, &mismatched, known.mismatched_policy);
    forward(table, &own, logits);
    fine = fine && step(logits, &own, &known);
    if (!fine) break;
    backward(logits, &own, d_table);
    if (at == 0) first = metrics.total;
    if (at == 5 && known_here(name)) {
      off = off_from_textbook(name, table, &own, &mismatched, &known, d_table, metrics.total);
    }
    if (at % 20 == 0) {
      printf("step %2d  %s %.4f  z %.3f  rewards %.3f (liked) %.3f\n", at, name, metrics.total,
             means[0], means[1], means[2]);
    }
    for (int i = 0; i < weights; ++i) table[i] -= 20 * d_table[i];
  }
  if (!fine) {
    printf("%s\n", error.message);
    return 2;
  }
  if (known_here(name)) {
    printf("loss and gradient within %.1e of the textbook\n", off);
  } else {
    printf("loss and gradient not compared: %s stands in no textbook here\n", name);
  }
  const bool right = off < 1e-6 && metrics.total < first && means[1] > 0 && means[2] < 0;
  puts(right ? "right" : "WRONG");
  return right ? 0 : 1;
}
