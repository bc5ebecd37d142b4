// What a snippet in CUDA may assume: the headers of the device, and a stream.
#include <prospect/cuda/sequences.cuh>
#include <prospect/cuda/tokens.cuh>

#include "frame.hpp"

// here, declarations

int main() {
  [[maybe_unused]] const cudaStream_t stream = nullptr;
  // here, statements
}
