// How many processors this process may use: those it is allowed to run on, and no more than its
// control groups give it time on. A container with half a machine is not a whole one.
#pragma once

#include <prospect/core/isa.hpp>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <limits>
#include <string>
#include <string_view>
#include <thread>

#if defined(__linux__)
#include <sched.h>
#endif

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::detail {
inline namespace PROSPECT_ISA {

/// The processors this thread may run on.
inline int allowed_processors() {
#if defined(__linux__) && defined(CPU_ALLOC)
  // A mask that has no room for every processor of the machine is refused.
  for (int most = 1024; most <= 1 << 20; most *= 4) {
    cpu_set_t* const set = CPU_ALLOC(static_cast<std::size_t>(most));
    if (set == nullptr) break;
    const std::size_t bytes = CPU_ALLOC_SIZE(static_cast<std::size_t>(most));
    const int count = sched_getaffinity(0, bytes, set) == 0 ? CPU_COUNT_S(bytes, set) : 0;
    CPU_FREE(set);
    if (count > 0) return count;
  }
#endif
  return static_cast<int>(std::thread::hardware_concurrency());
}

/// f(line) for every line of a file; for none if it cannot be read.
template <class F>
void each_line(const std::string& path, const F& f) {
  std::FILE* const file = std::fopen(path.c_str(), "r");
  if (file == nullptr) return;
  std::string line;
  for (int c = std::fgetc(file); c != EOF; c = std::fgetc(file)) {
    if (c != '\n') {
      line += static_cast<char>(c);
      continue;
    }
    f(std::string_view{line});
    line.clear();
  }
  if (!line.empty()) f(std::string_view{line});
  std::fclose(file);
}

/// Takes the part before the next separator off the front; all that is left if there is none.
inline std::string_view take(std::string_view& from, char separator) {
  const std::size_t end = (std::min)(from.find(separator), from.size());
  const std::string_view part = from.substr(0, end);
  from.remove_prefix((std::min)(end + 1, from.size()));
  return part;
}

inline bool lists_cpu(std::string_view names) {
  while (!names.empty()) {
    if (take(names, ',') == "cpu") return true;
  }
  return false;
}

/// The number a file begins with; the fallback if there is none.
inline double number_in(const std::string& path, double fallback) {
  double value = fallback;
  each_line(path, [&](std::string_view line) {
    double read = 0;
    if (std::sscanf(std::string{line}.c_str(), "%lf", &read) == 1) value = read;
  });
  return value;
}

/// Processors that one group's quota is worth.
inline double group_quota(const std::string& folder, bool unified) {
  constexpr double unlimited = (std::numeric_limits<double>::max)();
  double quota = -1;
  double period = -1;
  if (unified) {  // "max 100000" or "150000 100000"
    each_line(folder + "/cpu.max", [&](std::string_view line) {
      std::sscanf(std::string{line}.c_str(), "%lf %lf", &quota, &period);
    });
  } else {
    quota = number_in(folder + "/cpu.cfs_quota_us", -1);
    period = number_in(folder + "/cpu.cfs_period_us", -1);
  }
  return quota > 0 && period > 0 ? quota / period : unlimited;
}

/// Where a group's files lie: its hierarchy is mounted at `point`, from the group `root` on.
struct group_mount {
  std::string root, point;
};

inline group_mount mount_of(bool unified, const std::string& filesystem) {
  group_mount found;
  // 36 35 0:29 /root /point options [more] - type source options
  each_line(filesystem + "/proc/self/mountinfo", [&](std::string_view line) {
    for (int i = 0; i < 3; ++i) take(line, ' ');
    const std::string_view root = take(line, ' ');
    const std::string_view point = take(line, ' ');
    while (!line.empty() && take(line, ' ') != "-") continue;
    const std::string_view type = take(line, ' ');
    take(line, ' ');
    if (unified ? type == "cgroup2" : type == "cgroup" && lists_cpu(line)) {
      found = {std::string{root}, std::string{point}};
    }
  });
  return found;
}

/// The least of the quotas of this process's group and those above it, in processors.
/// @param filesystem what stands before /proc and /sys: a test's own.
inline double quota_processors(const std::string& filesystem = {}) {
  double least = (std::numeric_limits<double>::max)();
  each_line(filesystem + "/proc/self/cgroup", [&](std::string_view line) {
    take(line, ':');  // "0::/group", or "4:cpu,cpuacct:/group" of version 1
    const std::string_view controllers = take(line, ':');
    const bool unified = controllers.empty();
    if (!unified && !lists_cpu(controllers)) return;
    const group_mount mount = mount_of(unified, filesystem);
    if (mount.point.empty()) return;
    // Inside a container the group may be named as its host sees it, above what is mounted.
    std::string group{line};
    if (mount.root != "/") {
      group = group.compare(0, mount.root.size(), mount.root) == 0 ? group.substr(mount.root.size())
                                                                   : std::string{};
    }
    if (!group.starts_with('/') || group.find("/..") != std::string::npos) group.clear();
    const std::string top = filesystem + mount.point;
    while (true) {
      least = (std::min)(least, group_quota(top + group, unified));
      if (group.empty()) return;
      group.erase(group.rfind('/'));
    }
  });
  return least;
}

/// At least 1; a part of a processor counts as one.
inline int usable_processors(const std::string& filesystem = {}) {
  const int allowed = (std::max)(1, allowed_processors());
  const double quota = quota_processors(filesystem);
  if (quota >= allowed) return allowed;
  const int whole = static_cast<int>(quota);
  return (std::max)(1, whole < quota ? whole + 1 : whole);
}

}  // namespace PROSPECT_ISA
}  // namespace prospect::inline v2::detail
PROSPECT_STRICT_END
