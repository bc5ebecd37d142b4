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

/// An array of the device, by the engine's one way to have memory.
template <class T>
struct device_array {
  explicit device_array(int n) : size_{n} {
    check(cudaMalloc(reinterpret_cast<void**>(&data_), bytes()));
    check(cudaMemset(data_, 0xff, bytes()));
  }
  explicit device_array(const engine::array<T>& host) : device_array(host.size()) { set(host); }
  device_array(const device_array&) = delete;
  device_array& operator=(const device_array&) = delete;
  ~device_array() { cudaFree(data_); }
  T* data() const { return data_; }
  void set(const engine::array<T>& host) {
    check(cudaMemcpy(data_, host.data(), bytes(), cudaMemcpyHostToDevice));
  }
  engine::array<T> get() const {
    engine::array<T> host(size_);
    check(cudaMemcpy(host.data(), data_, bytes(), cudaMemcpyDeviceToHost));
    return host;
  }

 private:
  std::size_t bytes() const { return static_cast<std::size_t>(size_) * sizeof(T); }

  T* data_ = nullptr;
  int size_;
};

// glue begin
__global__ void negate(float* x, int n) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < n) x[i] = -x[i];
}
/// As on the CPU. `metrics` are on the device; up to 2048 sequences take no scratch memory.
void classify(const views<device_array>& v, const preference& loss, double sequences,
              prospect::unpaired_metrics* metrics, cudaStream_t stream) {
  namespace gpu = prospect::cuda;
  check(gpu::token_log_probs_and_gradient<float>(v.logits, v.targets, {.log_prob = v.log_prob},
                                                 {.zero_padding = true}, stream));
  check(gpu::sequence_sums<float>(v.log_prob, v.targets, v.layout, {.log_prob = v.policy}, stream));
  check(gpu::evaluate<double>(loss, v.batch, prospect::zero_point(), {.d_policy = v.d_policy},
                              prospect::normaliser::over(sequences), metrics, {}, stream));
  check(gpu::spread<float>(v.d_policy, v.targets, v.layout, v.d_token, stream));
  check(gpu::scale_rows<float>(v.logits, v.d_token, stream));
  negate<<<(v.b.s.rows() + 255) / 256, 256, 0, stream>>>(v.b.losses, v.b.s.rows());
  check(cudaGetLastError());
}
// glue end

bool is_right(const engine::shape& s) {
  const engine::data batch{s};
  const engine::array<float> logits = engine::hostile_logits(batch);
  engine::array<double> reference(s.B);
  for (int b = 0; b < s.B; ++b) reference[b] = -7 - b;
  const preference loss{.beta = 0.3};
  const engine::results exact = engine::textbook(batch, logits, reference, loss.beta, s.B);

  const device_array<float> d_logits{logits}, losses(s.rows());
  const device_array<int> targets{batch.targets};
  const device_array<std::uint8_t> liked{batch.liked};
  // glue begin
  room<device_array> more{s};
  const device_array<prospect::unpaired_metrics> metrics(1);
  // glue end
  more.reference.set(reference);
  cudaStream_t stream = nullptr;
  check(cudaStreamCreate(&stream));
  const views<device_array> v{{s, 0, d_logits.data(), losses.data(), targets.data(), liked.data()},
                              more};
  classify(v, loss, s.B, metrics.data(), stream);
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
