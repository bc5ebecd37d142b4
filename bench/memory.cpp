#include "memory.hpp"

#include <malloc.h>
#include <sys/wait.h>
#include <unistd.h>

#include <exception>
#include <fstream>
#include <limits>
#include <stdexcept>
#include <string>

namespace bench {
namespace {

std::int64_t status_bytes(const std::string& field) {
  std::ifstream status{"/proc/self/status"};
  for (std::string name; status >> name;) {
    if (name == field + ":") {
      std::int64_t kibibytes = 0;
      status >> kibibytes;
      return 1024 * kibibytes;
    }
    status.ignore(std::numeric_limits<std::streamsize>::max(), '\n');
  }
  throw std::runtime_error("/proc/self/status has no " + field);
}

}  // namespace

std::int64_t peak_memory(const std::function<void()>& work) {
  int channel[2];
  if (pipe(channel) != 0) throw std::runtime_error("no pipe");
  const pid_t child = fork();
  if (child < 0) throw std::runtime_error("no process");
  if (child == 0) {
    std::int64_t added = -1;
    try {
      malloc_trim(0);  // or `work` might find its memory among what was freed before
      // The peak starts from here again: it would still hold what was just given back.
      if (!(std::ofstream{"/proc/self/clear_refs"} << 5 << std::flush)) {
        throw std::runtime_error("/proc/self/clear_refs takes no 5");
      }
      const std::int64_t before = status_bytes("VmRSS");
      work();
      added = status_bytes("VmHWM") - before;
    } catch (const std::exception&) {
    }
    const bool sent = write(channel[1], &added, sizeof added) == sizeof added;
    _exit(sent ? 0 : 1);
  }
  close(channel[1]);
  std::int64_t added = -1;
  const bool received = read(channel[0], &added, sizeof added) == sizeof added;
  close(channel[0]);
  waitpid(child, nullptr, 0);
  if (!received || added < 0) throw std::runtime_error("the process that measures memory failed");
  return added;
}

}  // namespace bench
