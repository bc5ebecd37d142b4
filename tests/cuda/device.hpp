// Device memory for tests: arrays that live as long as the test and are full of NaN patterns before
// they are written, and rows of the host's tests with a copy on the device.

#pragma once

#include <prospect/core/strided_span.hpp>
#include <prospect/cuda/scratch.hpp>
#include <prospect/layout.hpp>

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <vector>

#include "catch.hpp"
#include "cpu/rows.hpp"

namespace testing {

inline void require_success(cudaError_t status) {
  CAPTURE(cudaGetErrorString(status));
  REQUIRE(status == cudaSuccess);
}

/// Waits for what was launched, and for its faults.
inline void synchronise() {
  require_success(cudaGetLastError());
  require_success(cudaDeviceSynchronize());
}

/// Whether kernels run on silicon, and not under an emulator.
inline bool on_silicon() {
  cudaDeviceProp properties{};
  require_success(cudaGetDeviceProperties(&properties, 0));
  return std::string_view{properties.name}.find("NVIDIA") != std::string_view::npos;
}
/// Where full sizes take no time; not under a sanitizer, which says so.
inline bool full_size() { return std::getenv("PROSPECT_SMALL_TESTS") == nullptr && on_silicon(); }

template <class T>
class device_array {
 public:
  explicit device_array(std::size_t size) : size_{size} {
    require_success(cudaMalloc(reinterpret_cast<void**>(&data_), bytes() + (size == 0 ? 1 : 0)));
    require_success(cudaMemset(data_, 0xff, bytes()));
  }
  explicit device_array(const std::vector<T>& host) : device_array(host.size()) { set(host); }
  device_array(const device_array&) = delete;
  device_array& operator=(const device_array&) = delete;
  ~device_array() { cudaFree(data_); }

  T* data() const { return data_; }
  std::size_t size() const { return size_; }
  std::size_t bytes() const { return size_ * sizeof(T); }
  void set(const std::vector<T>& host) const {
    require_success(cudaMemcpy(data_, host.data(), bytes(), cudaMemcpyHostToDevice));
  }
  std::vector<T> host() const {
    std::vector<T> copy(size_);
    require_success(cudaMemcpy(copy.data(), data_, bytes(), cudaMemcpyDeviceToHost));
    return copy;
  }
  prospect::strided_span<T> row() const { return {data_, static_cast<std::int64_t>(size_)}; }
  prospect::strided_span<const T> input() const { return row(); }

 private:
  std::size_t size_;
  T* data_ = nullptr;
};

/// A row of a host test, as it lies there, on the device.
template <class S>
class device_row {
 public:
  explicit device_row(laid_out_row<S>& host) : host_{host}, memory_(host.block()) {}

  prospect::strided_span<S> view() const {
    if (host_.size() == 0) return {};
    return {memory_.data() + host_.first(), host_.size(), host_.stride()};
  }
  void fetch() { host_.block() = memory_.host(); }

 private:
  laid_out_row<S>& host_;
  device_array<S> memory_;
};

/// Calls launch(scratch) twice: for the size, and with that much memory.
template <class Launch>
cudaError_t with_scratch(const Launch& launch) {
  std::size_t bytes = 0;
  require_success(launch(prospect::cuda::scratch::size_into(bytes)));
  const device_array<std::byte> memory(bytes);
  const cudaError_t status = launch(prospect::cuda::scratch{memory.data(), bytes});
  require_success(cudaDeviceSynchronize());
  return status;
}

/// Records what `launch(stream)` does as a graph, and replays it.
class recorded_graph {
 public:
  template <class Launch>
  explicit recorded_graph(const Launch& launch) {
    require_success(cudaStreamCreate(&stream_));
    require_success(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal));
    const cudaError_t status = launch(stream_);
    cudaGraph_t graph = nullptr;
    require_success(cudaStreamEndCapture(stream_, &graph));
    require_success(status);
    require_success(cudaGraphInstantiate(&graph_, graph, 0));
    require_success(cudaGraphDestroy(graph));
  }
  recorded_graph(const recorded_graph&) = delete;
  recorded_graph& operator=(const recorded_graph&) = delete;
  ~recorded_graph() {
    cudaGraphExecDestroy(graph_);
    cudaStreamDestroy(stream_);
  }
  void replay() const {
    require_success(cudaGraphLaunch(graph_, stream_));
    require_success(cudaStreamSynchronize(stream_));
  }

 private:
  cudaStream_t stream_ = nullptr;
  cudaGraphExec_t graph_ = nullptr;
};

}  // namespace testing
