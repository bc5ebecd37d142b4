// One child process, which writes into a log.
#pragma once

#include <sys/types.h>

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace align {

class child_process {
 public:
  // `words` are a program and its arguments; `variables` ("NAME=VALUE") replace those of the
  // environment. It is no part of the terminal's foreground: Ctrl-C reaches it by
  // `ask_to_stop` alone. Throws std::runtime_error.
  child_process(const std::vector<std::string>& words, const std::vector<std::string>& variables,
                const std::filesystem::path& log);

  // Asks it to stop and waits.
  ~child_process();
  child_process(const child_process&) = delete;
  child_process& operator=(const child_process&) = delete;

  // Empty while it runs; never waits. Of a killed one it is 128 and the signal, as in a shell.
  std::optional<int> exit_status();

  void ask_to_stop();

 private:
  void ended(int status);

  pid_t id_ = 0;
  std::optional<int> status_;
};

// Held until the process ends, and by its children until they end: a sweep that was killed may have
// left some, and nobody else shall write where they do. Throws std::runtime_error.
void lock_for_this_process_and_children(const std::filesystem::path& file);

}  // namespace align
