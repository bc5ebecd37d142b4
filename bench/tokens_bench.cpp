// Phases 1 and 3 on the CPU, from logits: each against the pass over memory that it has to make,
// and the step of a preference trainer (logits to gradient) that peers/tokens.py does in PyTorch.
//
//   tokens/forward      log-prob and lse           one read
//   tokens/statistics   the same and all the rest  one read
//   tokens/gradient     in place                   one read and write
//   tokens/deferred     both in one pass           one read and write
//   tokens/subnormal/   gradient and deferred, on ordinary data and where results are subnormal
//   step/prospect_keep, step/prospect_deferred     logits -> sums -> gradient
#include "limits.hpp"
#include "logits.hpp"
#include "memory.hpp"

#include <prospect/prospect.hpp>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <string_view>

namespace {

using namespace bench;
using prospect::bfloat16;
using prospect::float16;
using prospect::matrix_view;
using prospect::thread_pool;

constexpr int repetitions = 11;

/// What a batch holds. Subnormal are the results where all logits but one lie far below it and the
/// coefficients are up to 1e-3, or where these are up to 1e-30 by themselves.
enum class data_kind { ordinary, far, tiny };

/// All but one of each row's logits 85 to 98 below that one.
template <class S>
void fill_far(std::span<S> numbers, std::int64_t columns) {
  using R = prospect::compute_t<S>;
  random_numbers random{2};
  for (S& x : numbers) x = prospect::store<S>(R(-85) - R(random.below(1301)) / 100);
  const auto size = static_cast<std::int64_t>(numbers.size());
  for (std::int64_t first = 0; first < size; first += columns) {
    numbers[static_cast<std::size_t>(first + random.below(columns))] = prospect::store<S>(R(0));
  }
}

template <class S>
struct logits_batch {
  using R = prospect::compute_t<S>;

  logits_batch(std::int64_t tokens, std::int64_t columns, data_kind what)
      : data{what},
        rows{tokens},
        vocabulary{columns},
        original{static_cast<std::size_t>(tokens * columns)},
        logits{original.size()},
        targets{random_targets(tokens, columns)},
        log_prob(targets.size()),
        entropy(targets.size()),
        sum_squares(targets.size()),
        mean_logit(targets.size()),
        d_token(targets.size()),
        lse(targets.size()) {
    if (data == data_kind::far) {
      fill_far(std::span{original}, columns);
    } else {
      fill_normal(std::span{original}, 4.0F, 1);
    }
    const R d = data == data_kind::far ? R(1e-3) : data == data_kind::tiny ? R(1e-30) : R(1);
    for (std::size_t t = 0; t < d_token.size(); ++t) d_token[t] = d * (R(0.25) + R(t % 7) / 8);
    restore();
    require_right_answers();
  }

  matrix_view<S> matrix() const { return {logits.data(), rows, vocabulary}; }
  double bytes() const { return static_cast<double>(logits.bytes().size()); }
  void restore() { std::memcpy(logits.data(), original.data(), original.bytes().size()); }

  void forward(thread_pool& on) {
    prospect::cpu::token_log_probs<S>(matrix(), targets, {.log_prob = log_prob, .lse = lse}, {},
                                      on);
  }
  void statistics(thread_pool& on) {
    prospect::cpu::token_log_probs<S>(matrix(), targets,
                                      {.log_prob = log_prob,
                                       .lse = lse,
                                       .entropy = entropy,
                                       .sum_squares = sum_squares,
                                       .mean_logit = mean_logit},
                                      {}, on);
  }
  void gradient(thread_pool& on) {
    prospect::cpu::logits_gradient<S>(matrix(), targets, log_prob, lse, d_token, {}, on);
  }
  void deferred(thread_pool& on) {
    prospect::cpu::token_log_probs_and_gradient<S>(matrix(), targets,
                                                   {.log_prob = log_prob, .lse = lse}, {}, on);
  }

  /// The first, a middle and the last row.
  void require_right_answers() {
    const auto for_some_rows = [&](const auto& check) {
      for (const std::int64_t t : {std::int64_t{0}, rows / 2, rows - 1}) {
        check(t, static_cast<std::size_t>(t), original.data() + t * vocabulary);
      }
    };
    statistics(all_cores());
    const std::string name = name_of<S>;
    for_some_rows([&](std::int64_t, std::size_t t, const S* x) {
      const long double expected = reference_lse(x, vocabulary);
      const double target = prospect::load(x[targets[t]]);
      require_close(name + " lse", lse[t], static_cast<double>(expected), 2e-6);
      require_close(name + " log-prob", log_prob[t], target - static_cast<double>(expected), 8e-6);
      long double negative_entropy = 0, sum = 0;
      for (std::int64_t j = 0; j < vocabulary; ++j) {
        const long double z = prospect::load(x[j]) - expected;
        negative_entropy += std::exp(z) * z;
        sum += prospect::load(x[j]);
      }
      require_close(name + " entropy", entropy[t], -static_cast<double>(negative_entropy), 4e-5);
      require_close(name + " mean logit", mean_logit[t],
                    static_cast<double>(sum / static_cast<long double>(vocabulary)), 1e-5);
    });
    gradient(all_cores());
    for_some_rows([&](std::int64_t row, std::size_t t, const S* x) {
      require_gradient(matrix().row(row), x, vocabulary, targets[t], d_token[t]);
    });
    restore();
    deferred(all_cores());
    for_some_rows([&](std::int64_t row, std::size_t t, const S* x) {
      require_gradient(matrix().row(row), x, vocabulary, targets[t], 1);
    });
    restore();
  }

  data_kind data;
  std::int64_t rows, vocabulary;
  array<S> original, logits;
  std::vector<std::int32_t> targets;
  std::vector<R> log_prob, entropy, sum_squares, mean_logit, d_token;
  std::vector<double> lse;
};

/// The batch of the rows that are being timed, kept from one to the next.
template <class S>
logits_batch<S>& batch(std::int64_t rows, std::int64_t vocabulary,
                       data_kind data = data_kind::ordinary) {
  static std::unique_ptr<logits_batch<S>> kept;
  if (!kept || kept->rows != rows || kept->vocabulary != vocabulary || kept->data != data) {
    kept.reset();
    kept = std::make_unique<logits_batch<S>>(rows, vocabulary, data);
  }
  return *kept;
}

/// Times `work` against a pass over the same logits.
template <class S, class Prepare, class Work>
void time_pass(benchmark::State& state, logits_batch<S>& b, traffic kind, thread_pool& on,
               const Prepare& prepare, const Work& work) {
  const memory_limit& limit = limit_of(kind, on, b.logits.bytes());
  time_against(
      state, [&] { return limit.rate(b.logits.bytes()); }, prepare,
      [&] {
        work();
        return (kind == traffic::read ? 1 : 2) * b.bytes();
      });
}

/// Rows of `bytes` bytes in all, under the name tokens/WHAT/...
template <class S, class Body>
void register_pass(const std::string& what, std::int64_t vocabulary, std::int64_t bytes,
                   data_kind data, thread_pool& on, const Body& body) {
  const std::int64_t rows =
      std::max<std::int64_t>(4, bytes / (vocabulary * std::int64_t{sizeof(S)}));
  const std::string name = "tokens/" + what + "/" + name_of<S> +
                           "/V:" + std::to_string(vocabulary) +
                           "/threads:" + std::to_string(on.threads());
  const auto time = [=](benchmark::State& state) { body(state, batch<S>(rows, vocabulary, data)); };
  benchmark::RegisterBenchmark(name.c_str(), time)->UseManualTime()->Iterations(repetitions);
}

template <class S>
void time_gradient(benchmark::State& state, logits_batch<S>& b, thread_pool& on) {
  b.forward(on);
  time_pass(
      state, b, traffic::in_place, on, [&] { b.restore(); }, [&] { b.gradient(on); });
  b.restore();
}

template <class S>
void register_passes(std::int64_t vocabulary, std::int64_t bytes, thread_pool& on) {
  const auto add = [&](const std::string& what, const auto& body) {
    register_pass<S>(what, vocabulary, bytes, data_kind::ordinary, on, body);
  };
  using state_type = benchmark::State;
  using batch_type = logits_batch<S>;
  add("forward", [&on](state_type& state, batch_type& b) {
    time_pass(
        state, b, traffic::read, on, [] {}, [&] { b.forward(on); });
  });
  add("statistics", [&on](state_type& state, batch_type& b) {
    time_pass(
        state, b, traffic::read, on, [] {}, [&] { b.statistics(on); });
  });
  add("gradient", [&on](state_type& state, batch_type& b) { time_gradient(state, b, on); });
  add("deferred", [&on](state_type& state, batch_type& b) {
    std::vector<double> deferred, keep;
    const auto prepare = [&] {
      b.restore();
      keep.push_back(seconds_of([&] {
        b.forward(on);
        b.gradient(on);
      }));
      b.restore();
    };
    time_pass(state, b, traffic::in_place, on, prepare,
              [&] { deferred.push_back(seconds_of([&] { b.deferred(on); })); });
    b.restore();
    state.counters["ahead_of_keep_logits"] = median(keep) / median(deferred);
  });
}

/// The two passes that write gradients, where those are too small for a normal number, and the same
/// shapes with ordinary data. The deferred pass has no coefficient that could be tiny.
template <class S>
void register_subnormal(std::int64_t vocabulary, std::int64_t bytes, thread_pool& on) {
  for (const data_kind data : {data_kind::ordinary, data_kind::far, data_kind::tiny}) {
    const std::string kind = data == data_kind::ordinary ? "ordinary"
                             : data == data_kind::far    ? "far"
                                                         : "tiny";
    register_pass<S>(
        "subnormal/gradient/" + kind, vocabulary, bytes, data, on,
        [&on](benchmark::State& state, logits_batch<S>& b) { time_gradient(state, b, on); });
    if (data == data_kind::tiny) continue;
    register_pass<S>("subnormal/deferred/" + kind, vocabulary, bytes, data, on,
                     [&on](benchmark::State& state, logits_batch<S>& b) {
                       time_pass(
                           state, b, traffic::in_place, on, [&] { b.restore(); },
                           [&] { b.deferred(on); });
                       b.restore();
                     });
  }
}

enum class schedule { keep, deferred };

/// Logits of four sequences, whose coefficients are given, to the gradient in their place. In the
/// deferred schedule the coefficients wait for the product that the gradient goes into.
template <class S>
void step(logits_batch<S>& b, schedule how, thread_pool& on) {
  const auto sequences = prospect::sequence_layout::padded(4, b.rows / 4);
  const std::vector<double> d_sequence{0.5, -0.25, 1, -1};
  std::vector<double> sums(4);
  how == schedule::keep ? b.forward(on) : b.deferred(on);
  prospect::cpu::sequence_sums<float>(b.log_prob, b.targets, sequences, {.log_prob = sums});
  prospect::cpu::spread<float>(d_sequence, b.targets, sequences, b.d_token);
  if (how == schedule::keep) b.gradient(on);
  benchmark::DoNotOptimize(sums.data());
}

template <class S>
void time_step(benchmark::State& state, logits_batch<S>& b, schedule how, thread_pool& on) {
  time_each(
      state, [&] { b.restore(); }, [&] { step(b, how, on); });
  b.restore();
  state.counters["peak_extra"] = static_cast<double>(peak_memory([&, threads = on.threads()] {
    thread_pool pool{threads};
    step(b, how, pool);
  }));
}

template <class S>
void register_step(std::int64_t rows, std::int64_t vocabulary, thread_pool& on) {
  for (const schedule how : {schedule::keep, schedule::deferred}) {
    const std::string name = std::string{"step/prospect_"} +
                             (how == schedule::keep ? "keep" : "deferred") + "/" + name_of<S> +
                             "/" + std::to_string(rows) + "x" + std::to_string(vocabulary) +
                             "/threads:" + std::to_string(on.threads());
    const auto body = [=, &on](benchmark::State& state) {
      time_step(state, batch<S>(rows, vocabulary), how, on);
    };
    benchmark::RegisterBenchmark(name.c_str(), body)->UseManualTime()->Iterations(repetitions);
  }
}

}  // namespace

int main(int argc, char* argv[]) {
  benchmark::Initialize(&argc, argv);
  // Logits that no cache holds, unless asked for less.
  std::int64_t mebibytes = 256;
  if (argc == 3 && std::string_view{argv[1]} == "--mib") {
    mebibytes = std::max(1, std::atoi(argv[2]));
    argc = 1;
  }
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;

  for (const std::int64_t vocabulary : {32000, 50257, 128256, 151936}) {
    for (thread_pool* const on : pools()) {
      register_passes<float>(vocabulary, mebibytes << 20, *on);
      register_passes<bfloat16>(vocabulary, mebibytes << 20, *on);
      register_passes<float16>(vocabulary, mebibytes << 20, *on);
    }
  }
  for (thread_pool* const on : pools()) {
    register_subnormal<float>(32000, mebibytes << 20, *on);
    register_subnormal<bfloat16>(32000, mebibytes << 20, *on);
  }
  for (const std::int64_t vocabulary : {32000, 128256}) {
    for (thread_pool* const on : pools()) {
      register_step<float>(512, vocabulary, *on);
      register_step<bfloat16>(512, vocabulary, *on);
    }
  }
  benchmark::RunSpecifiedBenchmarks();
}
