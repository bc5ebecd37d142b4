// The head path: hidden states through the LM head to log-probs and gradients, in every schedule
// and with every GEMM that is found, in fp32 and bf16, against the rate at which the best of them
// multiplies matrices of these sizes and this type.
//
//   log_probs        1 product
//   frozen           2 products: log-probs and the gradient of the hidden states
//   trained_rows     3: chunks of whole rows, coefficients known per sequence
//   trained_columns  4: log-probs, then everything again for the gradients
//   trained_elastic  4 less the share of gradients that the workspace kept
#include "gemms.hpp"
#include "limits.hpp"
#include "logits.hpp"
#include "memory.hpp"

#include <prospect/cpu/head.hpp>

#include <array>
#include <memory>
#include <optional>
#include <string_view>

namespace {

using namespace bench;
using prospect::bfloat16;
using prospect::thread_pool;
namespace cpu = prospect::cpu;

/// Hidden states, a head, and every result of a step.
template <prospect::storage S>
struct head_batch {
  explicit head_batch(const head_sizes& s)
      : sizes{s},
        hidden{static_cast<std::size_t>(s.tokens * s.width)},
        weight{static_cast<std::size_t>(s.vocabulary * s.width)},
        d_hidden{hidden.size()},
        d_weight{weight.size()},
        targets{random_targets(s.tokens, s.vocabulary)},
        log_prob(targets.size()),
        d_token(targets.size()),
        lse(targets.size()) {
    fill_normal(std::span{hidden}, 1.0F, 1);
    fill_normal(std::span{weight}, 2 / std::sqrt(static_cast<float>(s.width)), 2);
    // Touched, so that they are not part of what a step adds to the peak.
    std::fill(d_hidden.begin(), d_hidden.end(), S{});
    std::fill(d_weight.begin(), d_weight.end(), 0.0F);
    for (std::size_t t = 0; t < d_token.size(); ++t) {
      d_token[t] = (t % 2 == 0 ? 0.25F : -0.25F) + static_cast<float>(t % 5) / 16;
    }
  }

  /// Of fp32 logits, whatever is stored.
  double logits_bytes() const {
    return static_cast<double>(sizeof(float)) *
           static_cast<double>(sizes.tokens * sizes.vocabulary);
  }
  cpu::lm_head<S> head() const {
    return {.weight = {weight.data(), sizes.vocabulary, sizes.width}};
  }
  matrix_view<const S> hidden_view() const { return {hidden.data(), sizes.tokens, sizes.width}; }
  prospect::token_outputs<float> outputs() { return {.log_prob = log_prob, .lse = lse}; }
  cpu::head_gradients<S> gradients() const {
    return {.hidden = {d_hidden.data(), sizes.tokens, sizes.width},
            .weight = {d_weight.data(), sizes.vocabulary, sizes.width}};
  }

  head_sizes sizes;
  array<S> hidden, weight, d_hidden;
  array<float> d_weight;
  std::vector<std::int32_t> targets;
  std::vector<float> log_prob, d_token;
  std::vector<double> lse;
};

using workspace = cpu::head_workspace<float>;

/// A way to do a step. `run` returns the number of products it made.
template <prospect::storage S>
struct schedule {
  const char* name;
  double (*run)(head_batch<S>&, const named_gemm&, workspace&, thread_pool&);
  bool coefficients;     ///< d_hidden has them in it
  bool hidden_gradient;  ///< leaves d_hidden
  bool weight_gradient;  ///< leaves d_weight
};

template <prospect::storage S, class Gemm>
double log_probs(head_batch<S>& b, const Gemm& multiply, workspace& w, thread_pool& on) {
  cpu::head_log_probs<S>(b.hidden_view(), b.head(), b.targets, b.outputs(), w, false, {}, multiply,
                         on);
  return 1;
}

template <prospect::storage S, class Gemm>
double frozen(head_batch<S>& b, const Gemm& multiply, workspace& w, thread_pool& on) {
  cpu::head_log_probs_and_gradient<S>(b.hidden_view(), b.head(), b.targets, b.outputs(),
                                      b.gradients().hidden, w, {}, multiply, on);
  return 2;
}

template <prospect::storage S, class Gemm>
double trained_rows(head_batch<S>& b, const Gemm& multiply, workspace& w, thread_pool& on) {
  // Eight tokens to a sequence; the coefficients are those in d_token already.
  const auto sequences = prospect::sequence_layout::padded(b.sizes.tokens / 8, 8);
  const auto known = [](std::int64_t, std::int64_t) {};
  cpu::head_step<S>(b.hidden_view(), b.head(), b.targets, sequences, 1, b.outputs(), known,
                    b.d_token, b.gradients(), w, {}, multiply, on);
  return 3;
}

template <prospect::storage S, bool keep, class Gemm>
double trained_apart(head_batch<S>& b, const Gemm& multiply, workspace& w, thread_pool& on) {
  const cpu::head_ticket ticket = cpu::head_log_probs<S>(b.hidden_view(), b.head(), b.targets,
                                                         b.outputs(), w, keep, {}, multiply, on);
  const double kept = static_cast<double>(ticket.kept()) / static_cast<double>(b.sizes.tokens);
  cpu::head_gradient<S>(b.hidden_view(), b.head(), b.targets, b.log_prob, b.lse, b.d_token,
                        b.gradients(), ticket, w, {}, multiply, on);
  return 4 - kept;
}

/// A schedule with whichever GEMM.
template <prospect::storage S, auto run>
double with_any(head_batch<S>& b, const named_gemm& named, workspace& w, thread_pool& on) {
  return with_gemm(named, [&](const auto& gemm) { return run(b, gemm, w, on); });
}
constexpr auto run_log_probs = [](auto&... of) { return log_probs(of...); };
constexpr auto run_frozen = [](auto&... of) { return frozen(of...); };
constexpr auto run_rows = [](auto&... of) { return trained_rows(of...); };
template <bool keep>
constexpr auto run_apart = []<prospect::storage S>(head_batch<S>& b, auto&... of) {
  return trained_apart<S, keep>(b, of...);
};

template <prospect::storage S>
constexpr std::array schedules{
    schedule<S>{"log_probs", with_any<S, run_log_probs>, false, false, false},
    schedule<S>{"frozen", with_any<S, run_frozen>, false, true, false},
    schedule<S>{"trained_rows", with_any<S, run_rows>, true, true, true},
    schedule<S>{"trained_columns", with_any<S, run_apart<false>>, true, true, true},
    schedule<S>{"trained_elastic", with_any<S, run_apart<true>>, true, true, true},
};

/// Every number of a small step against the definition, in double.
template <prospect::storage S>
void require_right_answers(const schedule<S>& s, const named_gemm& multiply) {
  head_batch<S> b{{64, 96, 3001}};
  workspace memory{2 << 20};
  s.run(b, multiply, memory, all_cores());
  const auto w = static_cast<std::size_t>(b.sizes.width);
  const auto v = static_cast<std::size_t>(b.sizes.vocabulary);
  const auto at = [](const array<S>& a, std::size_t i) {
    return static_cast<double>(prospect::load(a[i]));
  };
  std::vector<double> d_hidden(b.hidden.size()), d_weight(b.weight.size()), p(v);
  for (std::size_t t = 0; t < b.targets.size(); ++t) {
    double sum = 0;
    for (std::size_t j = 0; j < v; ++j) {
      double logit = 0;
      for (std::size_t k = 0; k < w; ++k)
        logit += at(b.hidden, t * w + k) * at(b.weight, j * w + k);
      sum += p[j] = std::exp(logit);
    }
    const auto target = static_cast<std::size_t>(b.targets[t]);
    require_close(std::string{s.name} + " log-prob", b.log_prob[t], std::log(p[target] / sum),
                  2e-5);
    for (std::size_t j = 0; j < v; ++j) {
      const double g = (j == target ? 1 : 0) - p[j] / sum;
      for (std::size_t k = 0; k < w; ++k) {
        d_hidden[t * w + k] += (s.coefficients ? b.d_token[t] : 1) * g * at(b.weight, j * w + k);
        d_weight[j * w + k] += b.d_token[t] * g * at(b.hidden, t * w + k);
      }
    }
  }
  const auto compare = [&](const char* what, const auto& got, const std::vector<double>& expected) {
    constexpr double tolerance = std::same_as<S, float> ? 2e-6 : 4e-3;
    double largest = 0;
    for (const double x : expected) largest = std::max(largest, std::abs(x));
    for (std::size_t i = 0; i < expected.size(); ++i) {
      require_close(std::string{s.name} + what, static_cast<double>(prospect::load(got[i])),
                    expected[i], tolerance * largest);
    }
  };
  if (s.hidden_gradient) compare(" gradient of hidden", b.d_hidden, d_hidden);
  if (s.weight_gradient) compare(" gradient of weight", b.d_weight, d_weight);
}

template <prospect::storage S, class Limit>
void time_schedule(benchmark::State& state, const schedule<S>& s, const named_gemm& multiply,
                   head_batch<S>& b, const Limit& limit, thread_pool& on) {
  require_right_answers(s, multiply);
  // So little that all that is held comes near what the leanest peer holds, and so much that
  // products are not short of rows: of the logits, a sixteenth where products take bf16 as it is,
  // two where they do not, three where the weight's gradient is asked for. And room for sixteen
  // tiles of the weight where they have to be widened.
  const bool widens = !std::same_as<S, float> && !multiply.has<S>();
  const bool narrow = !std::same_as<S, float> && !widens;
  const int sixteenths = s.weight_gradient ? 3 : narrow ? 1 : 2;
  const auto bytes = static_cast<std::int64_t>(b.logits_bytes() * sixteenths / 16) +
                     (widens ? 16 * 1024 * b.sizes.width * 4 : 0);
  workspace memory{bytes};
  double products = 0;
  time_against(
      state, [&] { return limit.rate(); }, [] {},
      [&] {
        products = s.run(b, multiply, memory, on);
        return products * b.sizes.product();
      });
  for (const auto& [name, rate] : limit.found()) state.counters[std::string{"gemm_"} + name] = rate;
  state.counters["products"] = products;
  state.counters["logits"] = b.logits_bytes();
  state.counters["peak_extra"] = static_cast<double>(peak_memory([&, threads = on.threads()] {
    workspace fresh{bytes};
    thread_pool pool{threads};
    s.run(b, multiply, fresh, pool);
  }));
}

/// The rows of one type. Where nobody multiplies it as it is, their limit is fp32's.
template <prospect::storage S>
class rows_of_type {
 public:
  rows_of_type(const head_sizes& sizes, thread_pool& on) : sizes_{sizes}, on_{on} {
    for (const named_gemm& gemm : gemms()) {
      narrow_ = narrow_ || gemm.has<S>();
      // Where all is widened one GEMM will do.
      if (!gemm.has<S>() && &gemm != gemms().data()) continue;
      for (const schedule<S>& s : schedules<S>) register_row(gemm, s);
    }
  }

 private:
  void register_row(const named_gemm& gemm, const schedule<S>& s) {
    const std::string name =
        std::string{"head/"} + gemm.name + "/" + s.name + "/" + name_of<S> + "/" +
        std::to_string(sizes_.tokens) + "x" + std::to_string(sizes_.width) + "x" +
        std::to_string(sizes_.vocabulary) + "/threads:" + std::to_string(on_.threads());
    benchmark::RegisterBenchmark(name.c_str(),
                                 [&](benchmark::State& state) {
                                   if (!batch_) batch_.emplace(sizes_);
                                   const auto run = [&](const auto& limit) {
                                     time_schedule(state, s, gemm, *batch_, limit, on_);
                                   };
                                   narrow_ ? run(limit_of<S>()) : run(limit_of<float>());
                                 })
        ->UseManualTime()
        ->Iterations(5);
  }
  template <prospect::storage T>
  const gemm_limit<T>& limit_of() const {
    static const gemm_limit<T> limit{sizes_, on_};
    return limit;
  }

  head_sizes sizes_;
  thread_pool& on_;
  bool narrow_ = false;
  std::optional<head_batch<S>> batch_;
};

}  // namespace

int main(int argc, char* argv[]) {
  benchmark::Initialize(&argc, argv);
  head_sizes sizes{2048, 1024, 32000};
  if (argc == 2 && std::string_view{argv[1]} == "--small") {
    sizes = {2048, 128, 2000};
    argc = 1;
  }
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  rows_of_type<float> fp32{sizes, all_cores()};
  rows_of_type<bfloat16> bf16{sizes, all_cores()};
  benchmark::RunSpecifiedBenchmarks();
}
