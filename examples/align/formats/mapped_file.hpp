// A file as memory: read-only, and only what is looked at is ever read from the disk.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <utility>

namespace align {

// Moving it leaves the bytes where they are, so that what points at them stays right. A file that
// is cut short by another program meanwhile ends this one; one that is replaced does no harm.
class mapped_file {
 public:
  explicit mapped_file(const std::filesystem::path& path);
  mapped_file(mapped_file&& other) noexcept : bytes_(std::exchange(other.bytes_, {})) {}
  mapped_file& operator=(mapped_file&& other) noexcept {
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~mapped_file();

  std::span<const std::byte> bytes() const { return bytes_; }

 private:
  std::span<const std::byte> bytes_;
};

}  // namespace align
