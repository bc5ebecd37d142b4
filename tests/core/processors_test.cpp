// How many processors a process may use: control groups of both versions, as systems and containers
// lay them out, and the CPU affinity of the thread that asks.

#include <prospect/core/processors.hpp>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <limits>
#include <string>

#if defined(__linux__)
#include <sched.h>
#endif

#include "catch.hpp"

namespace {

constexpr double unlimited = std::numeric_limits<double>::max();

/// A /proc and /sys of a test's own, gone at its end.
class filesystem {
 public:
  filesystem() {
    std::string name = (std::filesystem::temp_directory_path() / "prospect-XXXXXX").string();
    REQUIRE(mkdtemp(name.data()) != nullptr);
    root_ = name;
  }
  ~filesystem() { std::filesystem::remove_all(root_); }
  filesystem(const filesystem&) = delete;
  filesystem& operator=(const filesystem&) = delete;

  filesystem& with(const std::string& path, const std::string& text) {
    std::filesystem::create_directories((root_ + path).substr(0, (root_ + path).rfind('/')));
    std::ofstream{root_ + path} << text;
    return *this;
  }
  double quota() const { return prospect::detail::quota_processors(root_); }
  int usable() const { return prospect::detail::usable_processors(root_); }

 private:
  std::string root_;
};

const std::string unified_mount =
    "24 1 8:1 / / rw - ext4 /dev/vda rw\n"
    "31 24 0:28 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";

}  // namespace

TEST_CASE("the least quota of a group and those above it counts") {
  filesystem fs;
  fs.with("/proc/self/mountinfo", unified_mount).with("/proc/self/cgroup", "0::/job/step\n");
  CHECK(fs.quota() == unlimited);
  fs.with("/sys/fs/cgroup/job/step/cpu.max", "max 100000\n");
  CHECK(fs.quota() == unlimited);
  fs.with("/sys/fs/cgroup/job/cpu.max", "250000 100000\n");
  CHECK(fs.quota() == 2.5);
  fs.with("/sys/fs/cgroup/cpu.max", "50000 100000\n");
  CHECK(fs.quota() == 0.5);
  CHECK(fs.usable() == 1);
  fs.with("/sys/fs/cgroup/cpu.max", "100001 100000\n");
  CHECK(fs.usable() == std::min(2, prospect::detail::allowed_processors()));
  fs.with("/sys/fs/cgroup/job/step/cpu.max", "150000 50000\n");
  CHECK(fs.quota() == 1.00001);
}

TEST_CASE("a quota of version 1 counts, of the right hierarchy") {
  filesystem fs;
  fs.with("/proc/self/mountinfo",
          "32 31 0:29 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n"
          "33 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
          "34 31 0:31 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n")
      .with("/proc/self/cgroup", "5:cpuset:/a\n4:cpu,cpuacct:/job\n1:name=systemd:/x\n0::/\n")
      .with("/sys/fs/cgroup/cpuset/a/cpu.cfs_quota_us", "1000\n")
      .with("/sys/fs/cgroup/cpuset/a/cpu.cfs_period_us", "1000\n")
      .with("/sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_period_us", "100000\n")
      .with("/sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us", "-1\n");
  CHECK(fs.quota() == unlimited);
  fs.with("/sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us", "320000\n");
  CHECK(fs.quota() == 3.2);
}

TEST_CASE("a container sees its own group at the root of what is mounted") {
  filesystem fs;
  fs.with("/sys/fs/cgroup/cpu.max", "300000 100000\n");
  for (const char* group : {"/docker/4f", "/docker/4f/", "/", "/../other"}) {
    for (const char* root : {"/docker/4f", "/docker/else", "/"}) {
      CAPTURE(group, root);
      fs.with("/proc/self/cgroup", std::string{"0::"} + group)
          .with("/proc/self/mountinfo",
                std::string{"31 24 0:28 "} + root + " /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
      CHECK(fs.quota() == 3);
    }
  }
}

TEST_CASE("what cannot be read limits nothing") {
  filesystem fs;
  CHECK(fs.quota() == unlimited);
  fs.with("/proc/self/mountinfo", unified_mount).with("/proc/self/cgroup", "0::/\n");
  for (const char* text : {"", "\n", "garbage", "100000", "0 0\n", "-5 100000", "100000 0"}) {
    CAPTURE(text);
    fs.with("/sys/fs/cgroup/cpu.max", text);
    CHECK(fs.quota() == unlimited);
  }
  fs.with("/proc/self/cgroup", "garbage\n:::\n\n0:");
  CHECK(fs.quota() == unlimited);
  CHECK(fs.usable() == prospect::detail::allowed_processors());
}

#if defined(__linux__)
TEST_CASE("a thread that may run on one processor counts one") {
  cpu_set_t before, one;
  REQUIRE(sched_getaffinity(0, sizeof before, &before) == 0);
  CHECK(prospect::detail::allowed_processors() == CPU_COUNT(&before));
  int first = 0;
  while (!CPU_ISSET(first, &before)) ++first;
  CPU_ZERO(&one);
  CPU_SET(first, &one);
  REQUIRE(sched_setaffinity(0, sizeof one, &one) == 0);
  const int counted = prospect::detail::usable_processors();
  REQUIRE(sched_setaffinity(0, sizeof before, &before) == 0);
  CHECK(counted == 1);
}
#endif
