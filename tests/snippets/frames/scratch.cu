// frame of include/prospect/cuda/scratch.hpp, with scratch::size_into(bytes)
#include <prospect/losses/paired/dpo.hpp>

#include <prospect/cuda/sequences.cuh>

#include "frame.hpp"

using namespace prospect;        // as the snippet stands in the library's own namespace
using namespace prospect::cuda;  // NOLINT

int main() {
  const dpo loss;
  const paired_batch<float> in;
  const paired_outputs<float> out;
  const denominator by{normaliser::sum()};
  paired_metrics* metrics = nullptr;
  void* memory = nullptr;
  const cudaStream_t stream = nullptr;
  // here
  REQUIRE(cudaDeviceSynchronize() == cudaSuccess);
  REQUIRE(cudaFree(memory) == cudaSuccess);
}
