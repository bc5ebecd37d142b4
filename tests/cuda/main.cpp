// The main function of the device tests, which are skipped where there is no device: ctest knows
// that by exit code 77.
#include "runner.hpp"

#include <cuda_runtime_api.h>

int main(int argc, char* argv[]) {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) return 77;
  return testing::run(argc, argv);
}
