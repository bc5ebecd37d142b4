// Memory of the benches: aligned arrays, and how much a piece of work adds to the resident peak.
#pragma once

#include <prospect/core/dtype.hpp>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <new>
#include <span>

namespace bench {

/// An array on a page of its own, uninitialised.
template <class T>
class array {
 public:
  array() = default;
  explicit array(std::size_t size)
      : size_{size},
        data_{static_cast<T*>(::operator new(size * sizeof(T), std::align_val_t{page}))} {}

  std::size_t size() const noexcept { return size_; }
  T* data() const noexcept { return data_.get(); }
  T* begin() const noexcept { return data(); }
  T* end() const noexcept { return data() + size_; }
  T& operator[](std::size_t i) const noexcept { return data()[i]; }
  std::span<std::byte> bytes() const noexcept { return std::as_writable_bytes(std::span{*this}); }

 private:
  static constexpr std::size_t page = 4096;
  struct release {
    void operator()(T* p) const { ::operator delete(p, std::align_val_t{page}); }
  };
  std::size_t size_ = 0;
  std::unique_ptr<T, release> data_;
};

/// Bytes by which `work` raises the peak of resident memory (VmHWM) in a child process that starts
/// from this one's memory. Threads do not survive the fork: `work` must use a pool of its own.
std::int64_t peak_memory(const std::function<void()>& work);

}  // namespace bench
