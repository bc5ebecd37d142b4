// A small random source whose numbers are the same on every platform and standard library.
// (std::*_distribution and std::shuffle are not: each library may draw differently.)
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

namespace align {

// splitmix64 (Steele, Lea, Flood 2014): one word of state, passes BigCrush.
class random_source {
 public:
  explicit random_source(std::uint64_t seed) : state_(seed) {}

  std::uint64_t next() {
    std::uint64_t z = (state_ += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }

  // Uniform in [0, 1), 53 bits.
  double uniform() { return static_cast<double>(next() >> 11) * 0x1p-53; }

  // Uniform in [0, count); count > 0. The bias of the plain scaling is below count / 2^53.
  std::size_t below(std::size_t count) {
    return static_cast<std::size_t>(uniform() * static_cast<double>(count));
  }

  bool chance(double probability) { return uniform() < probability; }

 private:
  std::uint64_t state_;
};

// Fisher and Yates.
template <class T>
void shuffle(std::span<T> items, random_source& random) {
  for (std::size_t i = items.size(); i > 1; --i) std::swap(items[i - 1], items[random.below(i)]);
}

}  // namespace align
