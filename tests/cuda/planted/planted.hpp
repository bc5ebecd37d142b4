// What the programs that look for planted defects have in common: the first thing that is wrong
// ends them.

#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <vector>

namespace planted {

inline void demand(bool fine, const char* what) {
  if (fine) return;
  std::printf("wrong: %s\n", what);
  std::exit(1);
}
inline void demand(cudaError_t status) {
  demand(status == cudaSuccess, cudaGetErrorString(status));
}

template <class T>
T* on_device(const std::vector<T>& host) {
  T* data = nullptr;
  demand(cudaMalloc(reinterpret_cast<void**>(&data), host.size() * sizeof(T)));
  demand(cudaMemcpy(data, host.data(), host.size() * sizeof(T), cudaMemcpyHostToDevice));
  return data;
}
template <class T>
std::vector<T> on_host(const T* data, std::size_t size) {
  std::vector<T> host(size);
  demand(cudaDeviceSynchronize());
  demand(cudaMemcpy(host.data(), data, size * sizeof(T), cudaMemcpyDeviceToHost));
  return host;
}

}  // namespace planted
