// A program that loads a plug-in, lets it work on its threads, forks, and unloads it: the threads
// are gone with the code they ran, and nobody waits for threads that are not there.
// usage: plugin_host PLUGIN [THREADS]    of the process while the plug-in is loaded, if given
#include <dlfcn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <iterator>
#include <thread>

namespace {

void require(bool condition, const char* what) {
  if (condition) return;
  std::printf("not so: %s\n", what);
  std::fflush(stdout);
  std::_Exit(1);
}

/// Of this process, where the system tells.
std::ptrdiff_t threads() {
  const std::filesystem::path tasks = "/proc/self/task";
  if (!std::filesystem::exists(tasks)) return 1;
  return std::distance(std::filesystem::directory_iterator{tasks}, {});
}

struct plugin {
  const char* name;
  void* handle = dlopen(name, RTLD_NOW | RTLD_LOCAL);

  void work() const {
    require(handle != nullptr, "the plug-in can be loaded");
    const auto run = reinterpret_cast<int (*)()>(dlsym(handle, "plugin_work"));
    require(run != nullptr && run() == 1, "the plug-in works");
  }
  void unload() const {
    require(dlclose(handle) == 0, "the plug-in can be unloaded");
    require(dlopen(name, RTLD_NOW | RTLD_NOLOAD) == nullptr, "the plug-in is gone");
  }
};

enum class child_does { exit, work, unload };

bool child_passes(const plugin& loaded, child_does what) {
  const pid_t child = fork();
  if (child == 0) {
    alarm(20);  // hanging would be the defect
    if (what == child_does::work) loaded.work();
    if (what == child_does::unload) loaded.unload();
    std::exit(0);  // through the destructors of static objects
  }
  int status = 0;
  return waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

}  // namespace

int main(int count, char** arguments) {
  alarm(60);
  const std::ptrdiff_t before = threads();
  for (int round = 0; round < 5; ++round) {
    const plugin loaded{arguments[1]};
    loaded.work();
    if (count > 2) require(threads() == std::atoi(arguments[2]), "as many threads as asked for");
    for (const auto what : {child_does::exit, child_does::work, child_does::unload}) {
      require(child_passes(loaded, what), "a forked child passes");
    }
    loaded.work();
    loaded.unload();
    require(threads() == before, "the plug-in's threads are gone");
    std::this_thread::sleep_for(std::chrono::milliseconds{20});
  }
  plugin{arguments[1]}.work();  // and a program may end without unloading
}
