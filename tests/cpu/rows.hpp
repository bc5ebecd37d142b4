// Rows of any storage type, laid out with any stride in a larger block full of a NaN that no
// computation makes: what was written, and what was left alone, can be told from the bits.

#pragma once

#include <prospect/core/dtype.hpp>
#include <prospect/core/strided_span.hpp>

#include <algorithm>
#include <bit>
#include <cmath>
#include <concepts>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "closeness.hpp"

namespace testing {

template <class S>
S poison() {
  if constexpr (std::same_as<S, double>) return std::bit_cast<double>(0x7ffe5a5a5a5a5a5aULL);
  if constexpr (std::same_as<S, float>) return std::bit_cast<float>(0x7fe5a5a5U);
  if constexpr (std::same_as<S, prospect::bfloat16>) {
    return std::bit_cast<prospect::bfloat16>(std::uint16_t{0x7fe5});
  }
  if constexpr (std::same_as<S, prospect::float16>) {
    return std::bit_cast<prospect::float16>(std::uint16_t{0x7e5a});
  }
  if constexpr (std::integral<S>) return static_cast<S>(0x5a5a5a5a);
}

template <class S>
bool same_bits(const S& a, const S& b) {
  return std::memcmp(&a, &b, sizeof(S)) == 0;
}
template <class S>
bool same_bits(const std::vector<S>& a, const std::vector<S>& b) {
  return a.size() == b.size() &&
         (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(S)) == 0);
}

/// How a row lies in memory: elements before its block, and between its elements.
struct placement {
  std::int64_t offset = 0;
  std::int64_t stride = 1;
};

template <class S>
class laid_out_row {
 public:
  explicit laid_out_row(std::int64_t size, placement where = {})
      : size_{size},
        stride_{where.stride},
        block_(static_cast<std::size_t>(guard + where.offset + size * reach(where) + guard),
               poison<S>()) {
    first_ = guard + where.offset + (stride_ < 0 ? (size - 1) * -stride_ : 0);
  }

  prospect::strided_span<S> view() {
    return size_ == 0 ? prospect::strided_span<S>{}
                      : prospect::strided_span<S>{block_.data() + first_, size_, stride_};
  }
  S& operator[](std::int64_t i) { return block_[static_cast<std::size_t>(first_ + i * stride_)]; }
  std::int64_t size() const { return size_; }
  /// The block that the row lies in, and where its first element is: for a copy elsewhere.
  std::vector<S>& block() { return block_; }
  std::int64_t first() const { return first_; }
  std::int64_t stride() const { return stride_; }
  /// The elements in order, without what lies between them.
  std::vector<S> elements() {
    std::vector<S> row;
    for (std::int64_t i = 0; i < size_; ++i) row.push_back((*this)[i]);
    return row;
  }
  /// Exactly the elements of the row were written, each of them.
  bool only_elements_written() {
    std::vector<bool> inside(block_.size());
    for (std::int64_t i = 0; i < size_; ++i) {
      inside[static_cast<std::size_t>(first_ + i * stride_)] = true;
    }
    for (std::size_t k = 0; k < block_.size(); ++k) {
      if (same_bits(block_[k], poison<S>()) == inside[k]) return false;
    }
    return true;
  }

 private:
  static constexpr std::int64_t guard = 5;
  static std::int64_t reach(placement where) {
    return std::max<std::int64_t>(1, std::abs(where.stride));
  }

  std::int64_t size_, stride_;
  std::int64_t first_ = 0;
  std::vector<S> block_;
};

/// x in storage type S.
template <prospect::storage S>
S stored(long double x) {
  return prospect::store<S>(static_cast<prospect::compute_t<S>>(x));
}

/// Whether `got` is a number within `tolerance` of `want`, rounded once to S.
template <prospect::storage S>
bool stored_near(S got, long double want, long double tolerance) {
  const auto x = prospect::load(got);
  if (std::isnan(want) || std::isnan(x)) return std::isnan(want) && std::isnan(x);
  return x >= prospect::load(stored<S>(want - tolerance)) &&
         x <= prospect::load(stored<S>(want + tolerance));
}

}  // namespace testing
