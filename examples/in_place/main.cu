// The engine on a device: the same steps on its stream. The classifier allocates nothing, waits for
// nothing and reads nothing back, so that an engine may capture its step in a graph. Ends with 77
// where there is no device.
#include "views.hpp"

#include <prospect/cuda/sequences.cuh>
#include <prospect/cuda/tokens.cuh>

#include <cuda_runtime_api.h>

#include <cstdlib>

namespace {

void check(cudaError_t status) {
  if (status == cudaSuccess) return;
  std::printf("CUDA: %s\n", cudaGetErrorString(status));
  std::exit(1);
}

__global__ void negate_kernel(float* x, std::int64_t n) {
  const std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i < n) x[i] = -x[i];
}

void negate(float* x, std::int64_t n, cudaStream_t stream) {
  negate_kernel<<<static_cast<unsigned>((n + 255) / 256), 256, 0, stream>>>(x, n);
  check(cudaGetLastError());
}

// glue begin
/// As on the CPU. `metrics` are on the device; up to 2048 sequences take no scratch memory.
void classify(const views& v, const prospect::kto_zero& loss, double sequences,
              prospect::unpaired_metrics* metrics, cudaStream_t stream) {
  namespace gpu = prospect::cuda;
  check(gpu::token_log_probs_and_gradient<float>(v.logits, v.targets, {.log_prob = v.log_prob},
                                                 {.zero_padding = true}, stream));
  check(gpu::sequence_sums<float>(v.log_prob, v.targets, v.layout, {.log_prob = v.policy}, stream));
  check(gpu::evaluate<double>(loss, v.batch, prospect::zero_point(), {.d_policy = v.d_policy},
                              prospect::normaliser::over(sequences), metrics, {}, stream));
  check(gpu::spread<float>(v.d_policy, v.targets, v.layout, v.d_token, stream));
  check(gpu::scale_rows<float>(v.logits, v.d_token, stream));
  negate(v.log_prob.data(), v.log_prob.size(), stream);
}
// glue end

/// An device_array of the device, by the engine's one way to have memory.
template <class T>
struct device_array {
  T* data = nullptr;
  int size;

  explicit device_array(int n) : size{n} {
    check(cudaMalloc(reinterpret_cast<void**>(&data), bytes()));
    check(cudaMemset(data, 0xff, bytes()));
  }
  explicit device_array(const engine::array<T>& host) : device_array(host.size()) {
    check(cudaMemcpy(data, host.data(), bytes(), cudaMemcpyHostToDevice));
  }
  device_array(const device_array&) = delete;
  device_array& operator=(const device_array&) = delete;
  ~device_array() { cudaFree(data); }
  std::size_t bytes() const { return static_cast<std::size_t>(size) * sizeof(T); }
  engine::array<T> get() const {
    engine::array<T> host(size);
    check(cudaMemcpy(host.data(), data, bytes(), cudaMemcpyDeviceToHost));
    return host;
  }
};

bool is_right(const engine::shape& s) {
  const engine::data batch{s};
  const engine::array<float> logits = engine::hostile_logits(batch);
  engine::array<double> reference(s.B);
  for (int b = 0; b < s.B; ++b) reference[b] = -7 - b;
  const prospect::kto_zero loss{.beta = 0.3};
  const engine::results exact = engine::textbook(batch, logits, reference, loss.beta, s.B);

  const device_array<float> d_logits{logits}, losses(s.rows()), d_token(s.rows());
  const device_array<int> targets{batch.targets};
  const device_array<std::uint8_t> liked{batch.liked};
  const device_array<double> policy(s.B), started{reference}, d_policy(s.B);
  const device_array<prospect::unpaired_metrics> metrics(1);
  cudaStream_t stream = nullptr;
  check(cudaStreamCreate(&stream));
  const views v{s,
                {d_logits.data, losses.data, targets.data, liked.data, d_token.data, policy.data,
                 started.data, d_policy.data}};
  classify(v, loss, s.B, metrics.data, stream);
  check(cudaStreamSynchronize(stream));
  check(cudaStreamDestroy(stream));

  double total = 0;  // as the CPU adds it up
  for (int b = 0; b < s.B; ++b) {
    double log_p = 0;
    for (int i = b * s.T; i < (b + 1) * s.T; ++i) log_p -= exact.losses[i];
    const double u = (batch.liked[b] != 0 ? 1 : -1) * loss.beta * (log_p - reference[b]);
    total += 1 / (1 + std::exp(u)) / s.B;
  }
  const double said = metrics.get()[0].total;
  std::printf("loss %.6f, the textbook's %.6f\n", said, total);
  return engine::agrees(s, exact, d_logits.get(), losses.get()) && std::fabs(said - total) < 1e-6;
}

}  // namespace

int main() {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::puts("there is no device");
    return 77;
  }
  const bool small = is_right({.B = 5, .T = 6, .V = 21, .Vp = 32});
  return is_right({.B = 3, .T = 5, .V = 5003, .Vp = 5120}) && small ? 0 : 1;
}
