// The head path beside its matrix products alone, cuBLASLt's, in the same process: what happens
// around them is what is to be small. A small problem is held against fp64 before anything is
// timed.
#include "device.hpp"

#include <prospect/cuda/gemm_cublaslt.hpp>
#include <prospect/cuda/head.cuh>

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

namespace {

namespace gpu = prospect::cuda;
using S = prospect::bfloat16;

struct shape {
  std::int64_t tokens, width, vocabulary;
};

/// Deterministic noise in [-1, 1) / 2^halvings, on host and device.
__host__ __device__ inline S noise(std::int64_t i, int halvings) {
  std::uint64_t h = static_cast<std::uint64_t>(i) * 0x9e3779b97f4a7c15U;
  h ^= h >> 32;
  h *= 0xd6e8feb86659fd93U;
  return prospect::store<S>((static_cast<float>(h >> 40) * 0x1p-23F - 1) /
                            static_cast<float>(1 << halvings));
}
__global__ void fill(S* x, std::int64_t size, int halvings) {
  for (std::int64_t i = blockIdx.x * std::int64_t{256} + threadIdx.x; i < size;
       i += gridDim.x * std::int64_t{256}) {
    x[i] = noise(i, halvings);
  }
}
constexpr int weight_halvings = 4;

class products {
 public:
  products() : workspace_(std::size_t{32} << 20) {
    bench::require(cublasLtCreate(&handle_) == CUBLAS_STATUS_SUCCESS, "cuBLASLt does not start");
  }
  ~products() { cublasLtDestroy(handle_); }
  products(const products&) = delete;
  products& operator=(const products&) = delete;
  gpu::gemm_cublaslt gemm() const { return {handle_, workspace_.data(), workspace_.bytes()}; }

 private:
  cublasLtHandle_t handle_ = nullptr;
  bench::device_array<std::byte> workspace_;
};

struct problem {
  shape size;
  std::size_t n = static_cast<std::size_t>(size.tokens);
  bench::device_array<S> hidden{n * static_cast<std::size_t>(size.width)};
  bench::device_array<S> weight{static_cast<std::size_t>(size.vocabulary * size.width)};
  bench::device_array<S> d_hidden{hidden.size()};
  bench::device_array<float> d_weight{weight.size()};
  bench::device_array<std::int64_t> targets{n};
  bench::device_array<float> log_prob{n}, d_token{n};
  bench::device_array<double> lse{n};

  explicit problem(shape s) : size{s} {
    fill<<<1024, 256>>>(hidden.data(), static_cast<std::int64_t>(hidden.size()), 0);
    fill<<<1024, 256>>>(weight.data(), static_cast<std::int64_t>(weight.size()), weight_halvings);
    std::vector<std::int64_t> y;
    for (std::int64_t t = 0; t < s.tokens; ++t) y.push_back(target(t));
    targets.set(y);
    d_token.set(std::vector<float>(n, 0.5F));
    bench::require(cudaDeviceSynchronize());
  }

  std::int64_t target(std::int64_t t) const { return t * 7919 % size.vocabulary; }
  gpu::head_rows<S> rows() const {
    return {.hidden = {hidden.data(), size.tokens, size.width},
            .head = {.weight = {weight.data(), size.vocabulary, size.width}},
            .targets = prospect::strided_span<const std::int64_t>{targets.data(), size.tokens},
            .scored_at_most = size.tokens};
  }
  prospect::token_outputs<float> out() const {
    return {.log_prob = {log_prob.data(), size.tokens}, .lse = {lse.data(), size.tokens}};
  }
  prospect::head_gradients<S> gradients() const {
    return {.hidden = {d_hidden.data(), size.tokens, size.width},
            .weight = {d_weight.data(), size.vocabulary, size.width}};
  }

  cudaError_t forward(const gpu::gemm_cublaslt& g, gpu::scratch space, cudaStream_t stream,
                      gpu::head_ticket* keep) const {
    return gpu::head_log_probs<S>(rows(), out(), g, space, stream, keep);
  }
  cudaError_t frozen(const gpu::gemm_cublaslt& g, gpu::scratch space, cudaStream_t stream) const {
    return gpu::head_log_probs_and_gradient<S>(
        rows(), out(), prospect::matrix_view<S>{d_hidden.data(), size.tokens, size.width}, g, space,
        stream);
  }
  cudaError_t trained(const gpu::gemm_cublaslt& g, gpu::scratch space, cudaStream_t stream,
                      bool keep) const {
    gpu::head_ticket ticket;
    if (const cudaError_t e = forward(g, space, stream, keep ? &ticket : nullptr)) return e;
    return backward(g, space, stream, ticket);
  }
  cudaError_t backward(const gpu::gemm_cublaslt& g, gpu::scratch space, cudaStream_t stream,
                       gpu::head_ticket ticket) const {
    return gpu::head_gradient<S>(rows(), {log_prob.data(), size.tokens}, {lse.data(), size.tokens},
                                 {d_token.data(), size.tokens}, gradients(), ticket, g, space,
                                 stream);
  }

  /// The products of a schedule by themselves, over all tokens at once.
  cudaError_t multiply(const gpu::gemm_cublaslt& g, const std::string& what, float* logits,
                       const float* one, cudaStream_t stream) const {
    const std::int64_t t = size.tokens, h = size.width, v = size.vocabulary;
    const prospect::matrix_view<const S> x{hidden.data(), t, h}, w{weight.data(), v, h};
    // Any numbers do for a gradient of logits: here the logits' memory, read as bf16.
    const prospect::matrix_view<const S> gradient{reinterpret_cast<const S*>(logits), t, v};
    const float* const zero = one + 1;
    const auto product = [&](const gpu::gemm_product<S>& p) { return g(p, stream); };
    const gpu::gemm_product<S> forward{
        .a = {x}, .b = {w, true}, .c = {logits, t, v}, .alpha = one, .beta = zero};
    const gpu::gemm_product<S> to_hidden{
        .a = {gradient}, .b = {w}, .c = {d_weight.data(), t, h}, .alpha = one, .beta = zero};
    const gpu::gemm_product<S> to_weight{.a = {gradient, true},
                                         .b = {x},
                                         .c = {d_weight.data(), v, h},
                                         .alpha = one,
                                         .beta = zero,
                                         .tokens = gpu::gemm_tokens::inner};
    cudaError_t e = product(forward);
    if (e == cudaSuccess && what == "recomputed") e = product(forward);
    if (e == cudaSuccess && what != "log_probs") e = product(to_hidden);
    if (e == cudaSuccess && (what == "kept" || what == "recomputed")) e = product(to_weight);
    return e;
  }
};

void require_right_answer(const gpu::gemm_cublaslt& g) {
  const problem p{{300, 64, 5003}};
  std::size_t bytes = 0;
  bench::require(p.frozen(g, gpu::scratch::size_into(bytes), nullptr));
  const bench::device_array<std::byte> memory(bytes);
  bench::require(p.frozen(g, {memory.data(), bytes}, nullptr));
  bench::require(cudaDeviceSynchronize());
  for (const std::int64_t t : {0, 150, 299}) {
    double sum = 0, own = 0;
    for (std::int64_t v = 0; v < p.size.vocabulary; ++v) {
      double z = 0;
      for (std::int64_t k = 0; k < p.size.width; ++k) {
        z += static_cast<double>(prospect::load(noise(t * p.size.width + k, 0))) *
             static_cast<double>(prospect::load(noise(v * p.size.width + k, weight_halvings)));
      }
      sum += std::exp(z);
      if (v == p.target(t)) own = z;
    }
    const double want = own - std::log(sum);
    bench::require(std::abs(p.log_prob.host(static_cast<std::size_t>(t), 1)[0] - want) <= 1e-3,
                   "a log-prob of the head is wrong");
  }
}

void run_row(benchmark::State& state, shape s, const std::string& what) {
  const products all;
  const gpu::gemm_cublaslt g = all.gemm();
  require_right_answer(g);
  bench::stopwatch watch;
  const problem p{s};
  const auto step = [&](gpu::scratch space, cudaStream_t stream) {
    if (what == "log_probs") return p.forward(g, space, stream, nullptr);
    if (what == "frozen") return p.frozen(g, space, stream);
    return p.trained(g, space, stream, what == "kept");
  };
  std::size_t bytes = 0, backward = 0;
  gpu::head_ticket ticket;
  if (what == "log_probs" || what == "frozen") {
    bench::require(step(gpu::scratch::size_into(bytes), nullptr));
  } else {
    bench::require(
        p.forward(g, gpu::scratch::size_into(bytes), nullptr, what == "kept" ? &ticket : nullptr));
    bench::require(p.backward(g, gpu::scratch::size_into(backward), nullptr, ticket));
    bytes = std::max(bytes, backward);
  }
  double products_alone = 0;
  {
    const bench::device_array<float> logits(static_cast<std::size_t>(s.tokens * s.vocabulary));
    const bench::device_array<float> one(std::vector<float>{1, 0});
    fill<<<1024, 256>>>(reinterpret_cast<S*>(logits.data()),
                        static_cast<std::int64_t>(2 * logits.size()), 0);
    const auto alone = [&](cudaStream_t stream) {
      return p.multiply(g, what, logits.data(), one.data(), stream);
    };
    bench::require(alone(nullptr));
    products_alone = watch.median(alone);
  }
  const bench::device_array<std::byte> memory(bytes);
  const auto whole = [&](cudaStream_t stream) { return step({memory.data(), bytes}, stream); };
  bench::require(whole(nullptr));
  bench::require(cudaDeviceSynchronize());
  const double seconds = watch.median(whole);
  // On paper: the products, and what moves between them (MODEL.md).
  const double bytes_a_logit = what == "log_probs" ? 4 : what == "recomputed" ? 10 : 6;
  const double rate = bench::limit(watch, bench::traffic::copy, std::size_t{2} << 30);
  const double between =
      bytes_a_logit * static_cast<double>(s.tokens) * static_cast<double>(s.vocabulary) / rate;
  bench::report(state, seconds, 0, 0, 0, products_alone + between);
  state.counters["memory_bytes"] = static_cast<double>(bytes);
  state.counters["products_s"] = products_alone;
  state.counters["of_limit"] = products_alone / seconds;
  const double products = what == "log_probs" ? 1 : what == "frozen" ? 2 : what == "kept" ? 3 : 4;
  state.counters["flops_per_s"] = 2 * products * static_cast<double>(s.tokens * s.width) *
                                  static_cast<double>(s.vocabulary) / seconds;
}

}  // namespace

int main(int argc, char* argv[]) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) return 77;
  if (bench::tiny()) return 77;  // cuBLASLt has nothing to run on where nobody emulates it
  for (const shape s :
       {shape{4096, 4096, 128256}, shape{8192, 2048, 151936}, shape{4096, 4096, 32000}}) {
    for (const char* what : {"log_probs", "frozen", "kept", "recomputed"}) {
      const std::string name = std::string{"gpu/head/"} + what + "/bf16/" +
                               std::to_string(s.tokens) + "x" + std::to_string(s.width) + "x" +
                               std::to_string(s.vocabulary);
      benchmark::RegisterBenchmark(name.c_str(),
                                   [=](benchmark::State& state) { run_row(state, s, what); })
          ->UseManualTime()
          ->Iterations(1);
    }
  }
  benchmark::RunSpecifiedBenchmarks();
}
