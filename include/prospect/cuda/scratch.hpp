// The memory a launcher works in. It is the caller's, on the device, and may hold anything on
// entry; a launcher that runs again, in a graph for example, finds it as the run before left it.
#pragma once

#include <prospect/config.hpp>

#include <cstddef>
#include <cstdint>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cuda {

/// Device memory for one call. How much it takes, the call itself says:
///
/// ```cpp
/// std::size_t bytes = 0;
/// evaluate(loss, in, out, by, metrics, scratch::size_into(bytes), stream);  // launches nothing
/// cudaMalloc(&memory, bytes);
/// evaluate(loss, in, out, by, metrics, {memory, bytes}, stream);
/// ```
///
/// The size depends on the shapes, the storage type and the device, not on the data. It may be 0.
/// Two calls may share a scratch if they are ordered by their stream.
class scratch {
 public:
  PROSPECT_INLINE constexpr scratch() = default;
  PROSPECT_INLINE constexpr scratch(void* data, std::size_t size) noexcept
      : data_{static_cast<std::byte*>(data)}, size_{size} {}
  /// Asks a launcher to write the size it needs to `bytes` and to do nothing else.
  PROSPECT_INLINE static constexpr scratch size_into(std::size_t& bytes) noexcept {
    scratch s;
    s.needed_ = &bytes;
    return s;
  }
  /// The same of the least that a launcher can do with, where it works in as much as there is (the
  /// head path); of others that is what `size_into` says.
  PROSPECT_INLINE static constexpr scratch least_into(std::size_t& bytes) noexcept {
    scratch s = size_into(bytes);
    s.least_ = true;
    return s;
  }

  PROSPECT_INLINE constexpr bool counting() const noexcept { return needed_ != nullptr; }
  PROSPECT_INLINE constexpr bool counting_least() const noexcept { return least_; }
  PROSPECT_INLINE constexpr std::size_t size() const noexcept { return size_; }
  /// Ends the carving: hands out the size if it was asked for; false if the memory is too small.
  PROSPECT_INLINE constexpr bool suffices() const noexcept {
    if (counting()) *needed_ = used_;
    return counting() || used_ <= size_;
  }
  /// The next `count` objects. Points to nothing that may be used before `suffices` said so.
  template <class T>
  PROSPECT_INLINE T* carve(std::size_t count) noexcept {
    static_assert(alignof(T) <= alignment);
    std::byte* const here = data_ == nullptr ? nullptr : data_ + used_;
    used_ += (count * sizeof(T) + alignment - 1) / alignment * alignment;
    return reinterpret_cast<T*>(here);
  }
  /// Whether the memory is aligned as that of cudaMalloc is.
  PROSPECT_INLINE bool aligned() const noexcept {
    return reinterpret_cast<std::uintptr_t>(data_) % alignment == 0;
  }

 private:
  static constexpr std::size_t alignment = 256;

  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
  std::size_t used_ = 0;
  std::size_t* needed_ = nullptr;
  bool least_ = false;
};

}  // namespace prospect::inline v2::cuda
PROSPECT_STRICT_END
