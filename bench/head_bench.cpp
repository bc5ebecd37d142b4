// The head path: hidden states through the LM head to log-probs and gradients, in every schedule,
// against the rate at which the same GEMM multiplies matrices of these sizes. Built once with
// Eigen's own GEMM and once with a BLAS under Eigen, where one is found.
//
//   log_probs        1 product
//   frozen           2 products: log-probs and the gradient of the hidden states
//   trained_rows     3: chunks of whole rows, coefficients known per sequence
//   trained_columns  4: log-probs, then everything again for the gradients
//   trained_elastic  4 less the share of gradients that the workspace kept
#include "limits.hpp"
#include "logits.hpp"
#include "memory.hpp"

#include <prospect/cpu/head.hpp>

#include <array>
#include <functional>
#include <string_view>

namespace {

using namespace bench;
using prospect::matrix_view;
using prospect::thread_pool;
namespace cpu = prospect::cpu;

#ifdef EIGEN_USE_BLAS
constexpr const char* gemm_name = "blas";
#else
constexpr const char* gemm_name = "eigen";
#endif

/// Hidden states, a head, and every result of a step.
struct head_batch {
  head_batch(std::int64_t token_count, std::int64_t hidden_size, std::int64_t vocabulary_size)
      : tokens{token_count},
        width{hidden_size},
        vocabulary{vocabulary_size},
        hidden{static_cast<std::size_t>(tokens * width)},
        weight{static_cast<std::size_t>(vocabulary * width)},
        d_hidden{hidden.size()},
        d_weight{weight.size()},
        targets{random_targets(tokens, vocabulary)},
        log_prob(targets.size()),
        d_token(targets.size()),
        lse(targets.size()) {
    fill_normal(std::span{hidden}, 1.0F, 1);
    fill_normal(std::span{weight}, 2 / std::sqrt(static_cast<float>(width)), 2);
    // Touched, so that they are not part of what a step adds to the peak.
    std::fill(d_hidden.begin(), d_hidden.end(), 0.0F);
    std::fill(d_weight.begin(), d_weight.end(), 0.0F);
    for (std::size_t t = 0; t < d_token.size(); ++t) {
      d_token[t] = (t % 2 == 0 ? 0.25F : -0.25F) + static_cast<float>(t % 5) / 16;
    }
  }

  /// Multiplications and additions of one product of tokens, hidden size and vocabulary.
  double product() const {
    return 2 * static_cast<double>(tokens) * static_cast<double>(width) *
           static_cast<double>(vocabulary);
  }
  double logits_bytes() const {
    return static_cast<double>(sizeof(float)) * static_cast<double>(tokens * vocabulary);
  }
  cpu::lm_head<float> head() const { return {.weight = {weight.data(), vocabulary, width}}; }
  matrix_view<const float> hidden_view() const { return {hidden.data(), tokens, width}; }
  prospect::token_outputs<float> outputs() { return {.log_prob = log_prob, .lse = lse}; }
  cpu::head_gradients<float> gradients() const {
    return {.hidden = {d_hidden.data(), tokens, width},
            .weight = {d_weight.data(), vocabulary, width}};
  }

  std::int64_t tokens, width, vocabulary;
  array<float> hidden, weight, d_hidden, d_weight;
  std::vector<std::int32_t> targets;
  std::vector<float> log_prob, d_token;
  std::vector<double> lse;
};

using workspace = cpu::head_workspace<float>;

/// A way to do a step. `run` returns the number of products it made.
struct schedule {
  const char* name;
  double (*run)(head_batch&, workspace&, thread_pool&);
  bool coefficients;     ///< d_hidden has them in it
  bool hidden_gradient;  ///< leaves d_hidden
  bool weight_gradient;  ///< leaves d_weight
};

double log_probs(head_batch& b, workspace& w, thread_pool& on) {
  cpu::head_log_probs<float>(b.hidden_view(), b.head(), b.targets, b.outputs(), w, false, {},
                             cpu::eigen_gemm{}, on);
  return 1;
}

double frozen(head_batch& b, workspace& w, thread_pool& on) {
  cpu::head_log_probs_and_gradient<float>(b.hidden_view(), b.head(), b.targets, b.outputs(),
                                          b.gradients().hidden, w, {}, cpu::eigen_gemm{}, on);
  return 2;
}

double trained_rows(head_batch& b, workspace& w, thread_pool& on) {
  // Eight tokens to a sequence; the coefficients are those in d_token already.
  const auto sequences = prospect::sequence_layout::padded(b.tokens / 8, 8);
  const auto known = [](std::int64_t, std::int64_t) {};
  cpu::head_step<float>(b.hidden_view(), b.head(), b.targets, sequences, 1, b.outputs(), known,
                        b.d_token, b.gradients(), w, {}, cpu::eigen_gemm{}, on);
  return 3;
}

template <bool keep>
double trained_apart(head_batch& b, workspace& w, thread_pool& on) {
  const cpu::head_ticket ticket = cpu::head_log_probs<float>(
      b.hidden_view(), b.head(), b.targets, b.outputs(), w, keep, {}, cpu::eigen_gemm{}, on);
  const double kept = static_cast<double>(ticket.kept()) / static_cast<double>(b.tokens);
  cpu::head_gradient<float>(b.hidden_view(), b.head(), b.targets, b.log_prob, b.lse, b.d_token,
                            b.gradients(), ticket, w, {}, cpu::eigen_gemm{}, on);
  return 4 - kept;
}

constexpr std::array schedules{
    schedule{"log_probs", log_probs, false, false, false},
    schedule{"frozen", frozen, false, true, false},
    schedule{"trained_rows", trained_rows, true, true, true},
    schedule{"trained_columns", trained_apart<false>, true, true, true},
    schedule{"trained_elastic", trained_apart<true>, true, true, true},
};

/// Every number of a small step against the definition, in double.
void require_right_answers(const schedule& s) {
  head_batch b{64, 96, 3001};
  workspace memory{400 << 10};
  s.run(b, memory, all_cores());
  const auto w = static_cast<std::size_t>(b.width);
  const auto v = static_cast<std::size_t>(b.vocabulary);
  std::vector<double> d_hidden(b.hidden.size()), d_weight(b.weight.size()), p(v);
  for (std::size_t t = 0; t < b.targets.size(); ++t) {
    const float* const h = b.hidden.data() + t * w;
    double sum = 0;
    for (std::size_t j = 0; j < v; ++j) {
      const float* const row = b.weight.data() + j * w;
      double logit = 0;
      for (std::size_t k = 0; k < w; ++k) logit += static_cast<double>(h[k]) * row[k];
      sum += p[j] = std::exp(logit);
    }
    const auto target = static_cast<std::size_t>(b.targets[t]);
    require_close(std::string{s.name} + " log-prob", b.log_prob[t], std::log(p[target] / sum),
                  2e-5);
    for (std::size_t j = 0; j < v; ++j) {
      const double g = (j == target ? 1 : 0) - p[j] / sum;
      for (std::size_t k = 0; k < w; ++k) {
        d_hidden[t * w + k] += (s.coefficients ? b.d_token[t] : 1) * g * b.weight[j * w + k];
        d_weight[j * w + k] += b.d_token[t] * g * h[k];
      }
    }
  }
  const auto compare = [&](const char* what, const array<float>& got,
                           const std::vector<double>& expected) {
    double largest = 0;
    for (const double x : expected) largest = std::max(largest, std::abs(x));
    for (std::size_t i = 0; i < expected.size(); ++i) {
      require_close(std::string{s.name} + what, got[i], expected[i], 2e-6 * largest);
    }
  };
  if (s.hidden_gradient) compare(" gradient of hidden", b.d_hidden, d_hidden);
  if (s.weight_gradient) compare(" gradient of weight", b.d_weight, d_weight);
}

/// The rate of the GEMM alone: the three products of a step over a part of the vocabulary, each
/// divided among the threads in large or in small pieces; the fastest counts.
class gemm_limit {
 public:
  gemm_limit(const head_batch& b, thread_pool& on)
      : b_{b},
        on_{on},
        part_{std::min<std::int64_t>(b.vocabulary, 8192)},
        logits_{static_cast<std::size_t>(b.tokens * part_)} {
    fill_normal(std::span{logits_}, 1.0F, 3);
    std::vector<std::vector<double>> rates(candidates().size());
    for (int round = 0; round < 3; ++round) {
      for (std::size_t i = 0; i < rates.size(); ++i) {
        rates[i].push_back(rate(candidates()[i]));
      }
    }
    double best = 0;
    for (std::size_t i = 0; i < rates.size(); ++i) {
      if (median(rates[i]) <= best) continue;
      best = median(rates[i]);
      best_ = candidates()[i];
    }
  }

  /// Multiplications and additions per second.
  double rate() const { return rate(best_); }

 private:
  struct candidate {
    enum { logits, d_hidden, d_weight } product;
    bool large;
  };
  static std::array<candidate, 6> candidates() {
    return {{{candidate::logits, true},
             {candidate::logits, false},
             {candidate::d_hidden, true},
             {candidate::d_hidden, false},
             {candidate::d_weight, true},
             {candidate::d_weight, false}}};
  }

  double rate(const candidate& c) const {
    // What is divided: rows of the hidden gradient, or else the vocabulary.
    const std::int64_t whole = c.product == candidate::d_hidden ? b_.tokens : part_;
    const std::int64_t share = (whole + on_.threads() - 1) / on_.threads();
    const std::int64_t piece =
        c.large ? share : std::min(share, c.product == candidate::d_hidden ? whole / 4 : 1024);
    const std::int64_t pieces = (whole + piece - 1) / piece;
    const double seconds = seconds_of([&] {
      on_.run(pieces,
              [&](std::int64_t i) { multiply(c, i * piece, std::min(piece, whole - i * piece)); });
    });
    return b_.product() * static_cast<double>(part_) / static_cast<double>(b_.vocabulary) / seconds;
  }

  void multiply(const candidate& c, std::int64_t first, std::int64_t size) const {
    using operand = cpu::gemm_operand<float>;
    const std::int64_t w = b_.width;
    const matrix_view<const float> hidden = b_.hidden_view();
    const cpu::eigen_gemm gemm;
    switch (c.product) {
      case candidate::logits:
        gemm(operand{hidden}, operand{{b_.weight.data() + first * w, size, w}, true},
             matrix_view<float>{logits_.data() + first, b_.tokens, size, part_}, false);
        break;
      case candidate::d_hidden:
        gemm(operand{{logits_.data() + first * part_, size, part_}},
             operand{{b_.weight.data(), part_, w}},
             matrix_view<float>{b_.d_hidden.data() + first * w, size, w}, false);
        break;
      case candidate::d_weight:
        gemm(operand{{logits_.data() + first, b_.tokens, size, part_}, true}, operand{hidden},
             matrix_view<float>{b_.d_weight.data() + first * w, size, w}, false);
        break;
    }
  }

  const head_batch& b_;
  thread_pool& on_;
  std::int64_t part_;
  array<float> logits_;
  candidate best_{};
};

void time_schedule(benchmark::State& state, const schedule& s, head_batch& b,
                   const gemm_limit& limit, thread_pool& on) {
  require_right_answers(s);
  // Three sixteenths of the logits, so that all of the extra memory stays below a quarter.
  const auto bytes = static_cast<std::int64_t>(b.logits_bytes() * 3 / 16);
  workspace memory{bytes};
  double products = 0;
  time_against(
      state, [&] { return limit.rate(); }, [] {},
      [&] {
        products = s.run(b, memory, on);
        return products * b.product();
      });
  state.counters["products"] = products;
  state.counters["logits"] = b.logits_bytes();
  state.counters["peak_extra"] = static_cast<double>(peak_memory([&, threads = on.threads()] {
    workspace fresh{bytes};
    thread_pool pool{threads};
    s.run(b, fresh, pool);
  }));
}

}  // namespace

int main(int argc, char* argv[]) {
  benchmark::Initialize(&argc, argv);
  std::int64_t tokens = 2048, vocabulary = 32000;
  if (argc == 2 && std::string_view{argv[1]} == "--small") {
    tokens = 512;
    vocabulary = 2000;
    argc = 1;
  }
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;

  std::unique_ptr<head_batch> batch;
  std::unique_ptr<gemm_limit> limit;
  thread_pool& on = all_cores();
  for (const schedule& s : schedules) {
    const std::string name = std::string{"head/"} + gemm_name + "/" + s.name + "/" +
                             std::to_string(tokens) + "x1024x" + std::to_string(vocabulary) +
                             "/threads:" + std::to_string(on.threads());
    benchmark::RegisterBenchmark(name.c_str(),
                                 [&](benchmark::State& state) {
                                   if (!batch)
                                     batch = std::make_unique<head_batch>(tokens, 1024, vocabulary);
                                   if (!limit) limit = std::make_unique<gemm_limit>(*batch, on);
                                   time_schedule(state, s, *batch, *limit, on);
                                 })
        ->UseManualTime()
        ->Iterations(5);
  }
  benchmark::RunSpecifiedBenchmarks();
}
