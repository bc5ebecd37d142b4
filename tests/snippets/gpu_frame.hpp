// What the frames of snippets for a device have in common.
#pragma once

#include <prospect/core/strided_span.hpp>

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <vector>

#include "frame.hpp"

/// n elements on the device, for as long as the program runs.
template <class T>
prospect::strided_span<T> on_device(const std::vector<T>& host) {
  T* data = nullptr;
  const std::size_t bytes = host.size() * sizeof(T);
  REQUIRE(cudaMalloc(reinterpret_cast<void**>(&data), bytes) == cudaSuccess);
  REQUIRE(cudaMemcpy(data, host.data(), bytes, cudaMemcpyHostToDevice) == cudaSuccess);
  return {data, static_cast<std::int64_t>(host.size())};
}

template <class T>
T first_of(const T* data) {
  T host{};
  REQUIRE(cudaMemcpy(&host, data, sizeof(T), cudaMemcpyDeviceToHost) == cudaSuccess);
  return host;
}
