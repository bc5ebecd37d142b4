// Timing on a device: memory that is freed, work recorded as a graph and timed by events with a
// cold L2 cache, and what a plain copy or a plain read of as many bytes takes in the same process.
#pragma once

#include <benchmark/benchmark.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

namespace bench {

/// Ends the program: a bench whose answer is wrong or whose device fails has nothing to time.
inline void require(bool fine, const std::string& what) {
  if (fine) return;
  std::fprintf(stderr, "%s\n", what.c_str());
  std::exit(1);
}
inline void require(cudaError_t status) {
  require(status == cudaSuccess, std::string{"CUDA: "} + cudaGetErrorString(status));
}

/// A rehearsal without a device worth timing: everything small, the times mean nothing.
inline bool tiny() { return std::getenv("PROSPECT_BENCH_TINY") != nullptr; }

template <class T>
class device_array {
 public:
  explicit device_array(std::size_t size) : size_{size} {
    require(cudaMalloc(reinterpret_cast<void**>(&data_), bytes() + 1));
    require(cudaMemset(data_, 0, bytes()));
  }
  explicit device_array(const std::vector<T>& host) : device_array(host.size()) { set(host); }
  device_array(const device_array&) = delete;
  device_array& operator=(const device_array&) = delete;
  ~device_array() { cudaFree(data_); }

  T* data() const { return data_; }
  std::size_t size() const { return size_; }
  std::size_t bytes() const { return size_ * sizeof(T); }
  void set(const std::vector<T>& host) const {
    require(cudaMemcpy(data_, host.data(), bytes(), cudaMemcpyHostToDevice));
  }
  std::vector<T> host(std::size_t first, std::size_t count) const {
    std::vector<T> copy(count);
    require(cudaMemcpy(copy.data(), data_ + first, count * sizeof(T), cudaMemcpyDeviceToHost));
    return copy;
  }

 private:
  std::size_t size_;
  T* data_ = nullptr;
};

inline std::size_t free_memory() {
  std::size_t free = 0;
  std::size_t total = 0;
  require(cudaMemGetInfo(&free, &total));
  return free;
}

/// Puts work on a stream.
using work = std::function<cudaError_t(cudaStream_t)>;

/// Seconds that one of `calls` calls takes, the L2 cache cold before the first; the median of a few
/// replays of a graph.
class stopwatch {
 public:
  stopwatch() : flushed_(tiny() ? 1024 : std::size_t{256} << 20) {
    require(cudaStreamCreate(&stream_));
    require(cudaEventCreate(&begin_));
    require(cudaEventCreate(&end_));
  }
  stopwatch(const stopwatch&) = delete;
  stopwatch& operator=(const stopwatch&) = delete;
  ~stopwatch() {
    cudaEventDestroy(begin_);
    cudaEventDestroy(end_);
    cudaStreamDestroy(stream_);
  }

  double median(const work& launch, int calls = 1) {
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t replay = nullptr;
    require(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal));
    for (int i = 0; i < calls; ++i) require(launch(stream_));
    require(cudaStreamEndCapture(stream_, &graph));
    require(cudaGraphInstantiate(&replay, graph, 0));
    std::vector<double> seconds;
    const int replays = tiny() ? 1 : 25;
    for (int i = 0; i < replays + 2; ++i) {
      require(cudaMemsetAsync(flushed_.data(), i, flushed_.bytes(), stream_));
      require(cudaEventRecord(begin_, stream_));
      require(cudaGraphLaunch(replay, stream_));
      require(cudaEventRecord(end_, stream_));
      require(cudaStreamSynchronize(stream_));
      float milliseconds = 0;
      require(cudaEventElapsedTime(&milliseconds, begin_, end_));
      if (i >= 2) seconds.push_back(1e-3 * static_cast<double>(milliseconds) / calls);
    }
    require(cudaGraphExecDestroy(replay));
    require(cudaGraphDestroy(graph));
    std::nth_element(seconds.begin(), seconds.begin() + replays / 2, seconds.end());
    return seconds[static_cast<std::size_t>(replays / 2)];
  }

 private:
  device_array<std::byte> flushed_;
  cudaStream_t stream_ = nullptr;
  cudaEvent_t begin_ = nullptr;
  cudaEvent_t end_ = nullptr;
};

static __global__ void __launch_bounds__(512)
    copy_words(const uint4* from, uint4* to, std::size_t n) {
  for (std::size_t i = blockIdx.x * std::size_t{512} + threadIdx.x; i < n;
       i += gridDim.x * std::size_t{512}) {
    to[i] = from[i];
  }
}
static __global__ void __launch_bounds__(512)
    read_words(const uint4* from, unsigned* sink, std::size_t n) {
  constexpr int in_flight = 4;
  unsigned all = 0;
  const std::size_t step = gridDim.x * std::size_t{512};
  for (std::size_t i = blockIdx.x * std::size_t{512} + threadIdx.x; i < n; i += in_flight * step) {
    uint4 w[in_flight];
#pragma unroll
    for (int k = 0; k < in_flight; ++k) {
      w[k] = i + k * step < n ? __ldg(from + i + k * step) : uint4{};
    }
#pragma unroll
    for (int k = 0; k < in_flight; ++k) all |= w[k].x | w[k].y | w[k].z | w[k].w;
  }
  if (all == 0x12345678) *sink = all;  // so that the loads are not left out
}

enum class traffic { read, copy };

inline int attribute(cudaDeviceAttr what) {
  int value = 0;
  require(cudaDeviceGetAttribute(&value, what, 0));
  return value;
}
inline int multiprocessors() { return attribute(cudaDevAttrMultiProcessorCount); }

/// Seconds that a launch takes on paper (MODEL.md): what its bytes take at the limit, or its warp
/// instructions at nine tenths of the issue slots. 0 where nobody counted them.
inline double model(double bytes, double limit_rate, double instructions) {
  if (instructions == 0) return 0;
  const double slots = 4.0 * multiprocessors() * 1e3 * attribute(cudaDevAttrClockRate);
  return std::max(bytes / limit_rate, instructions / (0.9 * slots));
}

/// Bytes per second of a plain read, or read and write together, of `bytes` in all.
inline double limit(stopwatch& watch, traffic what, std::size_t bytes) {
  const std::size_t words = std::max<std::size_t>(1, bytes / (what == traffic::copy ? 32 : 16));
  const device_array<uint4> from(words);
  const int blocks = tiny() ? 2 : multiprocessors() * 4;
  if (what == traffic::read) {
    const device_array<unsigned> sink(1);
    return static_cast<double>(from.bytes()) / watch.median([&](cudaStream_t stream) {
      read_words<<<blocks, 512, 0, stream>>>(from.data(), sink.data(), words);
      return cudaGetLastError();
    });
  }
  const device_array<uint4> to(words);
  const double by_kernel = watch.median([&](cudaStream_t stream) {
    copy_words<<<blocks, 512, 0, stream>>>(from.data(), to.data(), words);
    return cudaGetLastError();
  });
  const double by_driver = watch.median([&](cudaStream_t stream) {
    return cudaMemcpyAsync(to.data(), from.data(), from.bytes(), cudaMemcpyDeviceToDevice, stream);
  });
  return 2 * static_cast<double>(from.bytes()) / std::min(by_kernel, by_driver);
}

/// Reports what was timed. `bytes` is what the work must move, each byte once; 0 if it is bound by
/// nothing but launches. `model_seconds`: what it takes on paper, where that is known.
inline void report(benchmark::State& state, double seconds, double bytes, double limit_rate,
                   int launches, double model_seconds = 0) {
  for ([[maybe_unused]] auto _ : state) state.SetIterationTime(seconds);
  state.counters["median_s"] = seconds;
  state.counters["launches"] = launches;
  if (model_seconds > 0) state.counters["model_s"] = model_seconds;
  if (bytes == 0) return;
  state.counters["bytes"] = bytes;
  state.counters["bytes_per_s"] = bytes / seconds;
  state.counters["limit_per_s"] = limit_rate;
  state.counters["of_limit"] = bytes / seconds / limit_rate;
}

}  // namespace bench
