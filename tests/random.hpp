// One source of random test inputs. Every test names a default seed, so that a run repeats; set
// PROSPECT_SEED to try others, and CAPTURE(random.seed()) so that a failure says which one it was.

#pragma once

#include <cstdint>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

namespace testing {

class random_source {
 public:
  explicit random_source(std::uint64_t default_seed) : seed_{chosen(default_seed)}, bits_{seed_} {}

  std::uint64_t seed() const { return seed_; }
  std::uint64_t bits() { return bits_(); }
  double uniform(double low, double high) {
    return std::uniform_real_distribution<double>{low, high}(bits_);
  }
  double normal(double deviation) { return std::normal_distribution<double>{0, deviation}(bits_); }
  /// An integer in [low, high], both included.
  std::int64_t integer(std::int64_t low, std::int64_t high) {
    return std::uniform_int_distribution<std::int64_t>{low, high}(bits_);
  }
  bool chance(double probability) { return uniform(0, 1) < probability; }
  std::vector<double> normals(std::int64_t count, double deviation) {
    std::vector<double> row(static_cast<std::size_t>(count));
    for (double& x : row) x = normal(deviation);
    return row;
  }

 private:
  static std::uint64_t chosen(std::uint64_t default_seed) {
    const char* wanted = std::getenv("PROSPECT_SEED");
    return wanted == nullptr ? default_seed : std::stoull(wanted);
  }

  std::uint64_t seed_;
  std::mt19937_64 bits_;
};

}  // namespace testing
