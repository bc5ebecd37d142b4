// What the current device offers, as far as launchers choose by it.
#pragma once

#include <prospect/config.hpp>

#include <cuda_runtime.h>

#include <cstdint>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cuda::detail {

struct device_limits {
  int multiprocessors = 0;
  int major = 0;
  int shared_memory = 0;  ///< most bytes that a block can have

  PROSPECT_INLINE static cudaError_t of_current(device_limits& limits) {
    int device = 0;
    if (const cudaError_t e = cudaGetDevice(&device)) return e;
    struct {
      int* value;
      cudaDeviceAttr what;
    } const asked[] = {
        {&limits.multiprocessors, cudaDevAttrMultiProcessorCount},
        {&limits.major, cudaDevAttrComputeCapabilityMajor},
        {&limits.shared_memory, cudaDevAttrMaxSharedMemoryPerBlockOptin},
    };
    for (const auto& [value, what] : asked) {
      if (const cudaError_t e = cudaDeviceGetAttribute(value, what, device)) return e;
    }
    return cudaSuccess;
  }
};

/// Whether blocks of this kernel can form clusters: both the device and what was compiled must know
/// of them, and a fat binary may hold less than the device could run.
template <class Kernel>
static cudaError_t knows_clusters(Kernel* kernel, const device_limits& limits, bool& answer) {
  cudaFuncAttributes attributes{};
  if (const cudaError_t e = cudaFuncGetAttributes(&attributes, kernel)) return e;
  answer = limits.major >= 9 && attributes.ptxVersion >= 90;
  return cudaSuccess;
}

/// Launches `kernel`, in clusters if `cluster` is not 1.
template <class... Parameters, class... Arguments>
static cudaError_t launch(void (*kernel)(Parameters...), std::int64_t blocks, int threads,
                          std::size_t shared_memory, int cluster, cudaStream_t stream,
                          const Arguments&... arguments) {
  if (blocks > 0x7fffffff) return cudaErrorInvalidValue;
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim = {static_cast<unsigned>(cluster), 1, 1};
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(blocks));
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.dynamicSmemBytes = shared_memory;
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = cluster == 1 ? 0 : 1;
  return cudaLaunchKernelEx(&config, kernel, Parameters(arguments)...);
}

}  // namespace prospect::inline v2::cuda::detail
PROSPECT_STRICT_END
