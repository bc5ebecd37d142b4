// The token kernels as a share of what a plain copy moves: log-probs (logits read once), gradient
// in place (read and written once), the deferred schedule (both in one pass), and the step that
// keeps its logits. A few rows are held against fp64 before anything is timed.
#include "device.hpp"

#include <prospect/cuda/tokens.cuh>

#include <cmath>
#include <cstdint>

namespace {

namespace gpu = prospect::cuda;
using prospect::bfloat16;
using prospect::float16;

struct shape {
  std::int64_t rows, columns;
};

template <class S>
__global__ void fill(S* x, std::int64_t size) {
  for (std::int64_t i = blockIdx.x * std::int64_t{256} + threadIdx.x; i < size;
       i += gridDim.x * std::int64_t{256}) {
    // Deterministic noise in [-4, 4).
    std::uint64_t h = static_cast<std::uint64_t>(i) * 0x9e3779b97f4a7c15U;
    h ^= h >> 32;
    h *= 0xd6e8feb86659fd93U;
    x[i] = prospect::store<S>(static_cast<float>(h >> 40) * 0x1p-21F - 4);
  }
}

/// One matrix of logits with everything that both phases need.
template <class S>
struct problem {
  shape size;
  bench::device_array<S> logits;
  bench::device_array<std::int64_t> targets;
  bench::device_array<float> log_prob, d_token;
  bench::device_array<double> lse;
  bench::device_array<std::byte> scratch;

  explicit problem(shape s)
      : size{s},
        logits(static_cast<std::size_t>(s.rows * s.columns)),
        targets(static_cast<std::size_t>(s.rows)),
        log_prob(targets.size()),
        d_token(targets.size()),
        lse(targets.size()),
        scratch(scratch_size()) {
    refill();
    std::vector<std::int64_t> y;
    for (std::int64_t t = 0; t < s.rows; ++t) y.push_back(t * 7919 % s.columns);
    targets.set(y);
    d_token.set(std::vector<float>(targets.size(), 0.5F));
  }

  void refill() const {
    fill<<<bench::tiny() ? 4 : 1024, 256>>>(logits.data(), size.rows * size.columns);
    bench::require(cudaDeviceSynchronize());
  }
  prospect::matrix_view<S> x() const { return {logits.data(), size.rows, size.columns}; }
  prospect::index_row y() const {
    return prospect::strided_span<const std::int64_t>{targets.data(), size.rows};
  }
  prospect::token_outputs<float> out() const {
    return {.log_prob = {log_prob.data(), size.rows}, .lse = {lse.data(), size.rows}};
  }

  cudaError_t forward(const prospect::token_options& options, gpu::scratch space,
                      cudaStream_t stream) const {
    return gpu::token_log_probs<S>(x(), y(), out(), options, space, stream);
  }
  bench::work forward(const prospect::token_options& options = {}) const {
    return [=, this](cudaStream_t stream) {
      return forward(options, {scratch.data(), scratch.size()}, stream);
    };
  }
  bench::work gradient(const prospect::token_options& options = {}) const {
    return [=, this](cudaStream_t stream) {
      return gpu::logits_gradient<S>(
          x(), y(), prospect::strided_span<const float>{log_prob.data(), size.rows},
          prospect::strided_span<const double>{lse.data(), size.rows},
          prospect::strided_span<const float>{d_token.data(), size.rows}, options, stream);
    };
  }
  bench::work deferred(const prospect::token_options& options = {}) const {
    return [=, this](cudaStream_t stream) {
      return gpu::token_log_probs_and_gradient<S>(x(), y(), out(), options, stream);
    };
  }

  double bytes() const { return static_cast<double>(logits.bytes()); }

  /// A few rows against fp64, in both schedules.
  void require_right_answer() const {
    const auto columns = static_cast<std::size_t>(size.columns);
    for (const std::int64_t t : {std::int64_t{0}, size.rows / 2, size.rows - 1}) {
      refill();
      const auto first = static_cast<std::size_t>(t) * columns;
      const auto row = logits.host(first, columns);
      double sum = 0;
      for (const S v : row) sum += std::exp(static_cast<double>(prospect::load(v)));
      const auto target = static_cast<std::size_t>(t * 7919 % size.columns);
      const double want = static_cast<double>(prospect::load(row[target])) - std::log(sum);
      const auto close = [](double got, double right) {
        return std::abs(got - right) <= 2e-3 * std::abs(right) + 1e-5;
      };
      for (const bool at_once : {false, true}) {
        refill();
        const double d = at_once ? 1 : 0.5;
        if (at_once) {
          bench::require(deferred()(nullptr));
        } else {
          bench::require(forward()(nullptr));
          bench::require(gradient()(nullptr));
        }
        bench::require(cudaDeviceSynchronize());
        bench::require(close(log_prob.host(static_cast<std::size_t>(t), 1)[0], want),
                       "a log-prob is wrong");
        const auto gradient_row = logits.host(first, columns);
        for (std::size_t j = 0; j < columns; ++j) {
          const double p = std::exp(static_cast<double>(prospect::load(row[j]))) / sum;
          // fp16 has no more digits where it is subnormal.
          bench::require(std::abs(static_cast<double>(prospect::load(gradient_row[j])) -
                                  d * ((j == target ? 1 : 0) - p)) <=
                             4e-3 * d * p + 4e-3 * (j == target) + 1e-7,
                         "a gradient is wrong");
        }
      }
    }
    refill();
  }

 private:
  std::size_t scratch_size() const {
    std::size_t bytes = 0;
    bench::require(forward({}, gpu::scratch::size_into(bytes), nullptr));
    return bytes;
  }
};

template <class S>
constexpr const char* name_of = std::is_same_v<S, float>      ? "fp32"
                                : std::is_same_v<S, bfloat16> ? "bf16"
                                                              : "fp16";

/// Warp instructions for 32 elements, as counted for MODEL.md.
struct counted {
  double forward, gradient, deferred;
};
template <class S>
constexpr counted instructions =
    sizeof(S) == 2 ? counted{7.1, 8.1, 14.4} : counted{9.4, 21.8, 29.8};

template <class S>
double model_of(const std::string& what, double bytes, double rate) {
  const auto time = [&](double passes, double count) {
    return bench::model(passes * bytes, rate, count * bytes / sizeof(S) / 32);
  };
  constexpr counted by = instructions<S>;
  if (what == "log_probs") return time(1, by.forward);
  if (what == "gradient") return time(2, by.gradient);
  if (what == "deferred") return time(2, by.deferred);
  if (what == "keep_logits") return time(1, by.forward) + time(2, by.gradient);
  return 0;
}

template <class S>
void run_row(benchmark::State& state, shape s, const std::string& what) {
  const std::size_t needed = static_cast<std::size_t>(s.rows * s.columns) * sizeof(S);
  if (bench::free_memory() < 2 * needed + (std::size_t{1} << 30) && !bench::tiny()) {
    state.SkipWithError("not enough device memory");
    return;
  }
  bench::stopwatch watch;
  const bool read_only = what.starts_with("log_probs");
  const double factor = read_only ? 1 : what == "keep_logits" ? 3 : 2;
  const double rate = bench::limit(watch, read_only ? bench::traffic::read : bench::traffic::copy,
                                   read_only ? needed : 2 * needed);
  const problem<S> p{s};
  p.require_right_answer();
  prospect::token_options options;
  if (what.ends_with("temperature")) options.temperature = 0.7;
  if (what.ends_with("soft_cap")) options.soft_cap = 30;
  bench::require(p.forward(options)(nullptr));
  bench::work launch = p.deferred(options);
  int launches = 1;
  if (read_only) {
    launch = p.forward(options);
    launches = p.scratch.size() > 0 ? 2 : 1;  // few rows: split, then finished
  } else if (what.starts_with("gradient")) {
    launch = p.gradient(options);
  } else if (what == "keep_logits") {
    launch = [&](cudaStream_t stream) {
      const cudaError_t e = p.forward()(stream);
      return e == cudaSuccess ? p.gradient()(stream) : e;
    };
    launches = 2;
  }
  bench::report(state, watch.median(launch), factor * p.bytes(), rate, launches,
                model_of<S>(what, p.bytes(), rate));
}

template <class S>
void register_rows() {
  std::vector<shape> shapes{{4096, 32000}, {8192, 50257}, {8192, 128256}, {16384, 151936}};
  shape few{64, 128256};
  if (bench::tiny()) {
    shapes = {{3, 257}, {2, 9001}};
    few = {1, 40000};
  }
  const auto add = [](const std::string& what, shape s) {
    const std::string name = "gpu/tokens/" + what + "/" + name_of<S> + "/" +
                             std::to_string(s.rows) + "x" + std::to_string(s.columns);
    benchmark::RegisterBenchmark(name.c_str(),
                                 [=](benchmark::State& state) { run_row<S>(state, s, what); })
        ->UseManualTime()
        ->Iterations(1);
  };
  for (const shape s : shapes) {
    for (const char* what : {"log_probs", "gradient", "deferred", "keep_logits"}) add(what, s);
  }
  for (const char* what : {"log_probs", "deferred"}) add(what, few);
  for (const char* what : {"log_probs", "gradient"}) {
    add(std::string{what} + "_temperature", shapes[0]);
    add(std::string{what} + "_soft_cap", shapes[0]);
  }
}

}  // namespace

int main(int argc, char* argv[]) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) return 77;
  register_rows<bfloat16>();
  register_rows<float>();
  register_rows<float16>();
  benchmark::RunSpecifiedBenchmarks();
}
