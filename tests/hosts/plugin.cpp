// A plug-in that includes the headers and hides its names.
#include <prospect/executor.hpp>

#include <atomic>

extern "C" __attribute__((visibility("default"))) int plugin_work() {
  std::atomic<std::int64_t> sum{0};
  prospect::thread_pool::shared().run(1000, [&](std::int64_t i) { sum += i; });
  return sum == 499500;
}
