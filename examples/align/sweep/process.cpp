// See process.hpp.
#include "sweep/process.hpp"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <stdexcept>
#include <string_view>
#include <system_error>

extern char** environ;

namespace align {
namespace {

constexpr int killed_by = 128;

[[noreturn]] void fail(const std::string& what, int error) {
  throw std::runtime_error(what + ": " + std::generic_category().message(error));
}

std::vector<char*> pointers(std::vector<std::string>& words) {
  std::vector<char*> out;
  for (std::string& word : words) out.push_back(word.data());
  out.push_back(nullptr);
  return out;
}

std::vector<std::string> environment_with(const std::vector<std::string>& variables) {
  std::vector<std::string> all = variables;
  for (char** at = environ; *at != nullptr; ++at) {
    const std::string_view known = *at;
    const std::string_view name = known.substr(0, known.find('=') + 1);
    const bool replaced = std::ranges::any_of(
        variables, [&](const std::string& own) { return own.starts_with(name); });
    if (!replaced) all.emplace_back(known);
  }
  return all;
}

// posix_spawn's two descriptions, which have to be given back.
struct descriptions {
  posix_spawn_file_actions_t files;
  posix_spawnattr_t attributes;

  descriptions() {
    posix_spawn_file_actions_init(&files);
    posix_spawnattr_init(&attributes);
  }
  ~descriptions() {
    posix_spawn_file_actions_destroy(&files);
    posix_spawnattr_destroy(&attributes);
  }
  descriptions(const descriptions&) = delete;
  descriptions& operator=(const descriptions&) = delete;
};

}  // namespace

child_process::child_process(const std::vector<std::string>& words,
                             const std::vector<std::string>& variables,
                             const std::filesystem::path& log) {
  descriptions d;
  posix_spawn_file_actions_addopen(&d.files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&d.files, STDOUT_FILENO, log.c_str(),
                                   O_WRONLY | O_CREAT | O_APPEND, 0666);
  posix_spawn_file_actions_adddup2(&d.files, STDOUT_FILENO, STDERR_FILENO);
  posix_spawnattr_setflags(&d.attributes, POSIX_SPAWN_SETPGROUP);
  posix_spawnattr_setpgroup(&d.attributes, 0);
  std::vector<std::string> own_words = words, own_variables = environment_with(variables);
  const int error = posix_spawn(&id_, words.front().c_str(), &d.files, &d.attributes,
                                pointers(own_words).data(), pointers(own_variables).data());
  if (error != 0) fail("cannot start " + words.front(), error);
}

child_process::~child_process() {
  if (status_) return;
  ask_to_stop();
  int status = 0;
  while (waitpid(id_, &status, 0) < 0 && errno == EINTR) {
  }
}

std::optional<int> child_process::exit_status() {
  int status = 0;
  if (!status_ && waitpid(id_, &status, WNOHANG) == id_) ended(status);
  return status_;
}

void child_process::ask_to_stop() {
  if (!status_) kill(id_, SIGTERM);
}

void child_process::ended(int status) {
  status_ = WIFSIGNALED(status) ? killed_by + WTERMSIG(status) : WEXITSTATUS(status);
}

void lock_for_this_process_and_children(const std::filesystem::path& file) {
  const int opened = open(file.c_str(), O_RDWR | O_CREAT, 0666);
  if (opened < 0) fail("cannot open " + file.string(), errno);
  if (flock(opened, LOCK_EX | LOCK_NB) == 0) return;
  const int error = errno;
  close(opened);
  if (error != EWOULDBLOCK) fail("cannot lock " + file.string(), error);
  throw std::runtime_error("another sweep, or runs that it left, still write into " +
                           file.parent_path().string() + ": wait for them, or end them");
}

}  // namespace align
