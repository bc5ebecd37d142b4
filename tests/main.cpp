// The main function of every test program, under Catch2 2.13 and 3. A device test is skipped, which
// ctest knows by exit code 77, where there is no device.
#if __has_include(<catch2/catch_session.hpp>)
#include <catch2/catch_session.hpp>
#else
#define CATCH_CONFIG_RUNNER
#include <catch2/catch.hpp>
#endif

#if defined(PROSPECT_DEVICE_TEST)
#include <cuda_runtime_api.h>
#endif

int main(int argc, char* argv[]) {
#if defined(PROSPECT_DEVICE_TEST)
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) return 77;
#endif
  const int result = Catch::Session().run(argc, argv);
  // Catch2 2.13 returns the number of failures, and ctest would read 77 of them as "skipped".
  return result == 0 ? 0 : 1;
}
