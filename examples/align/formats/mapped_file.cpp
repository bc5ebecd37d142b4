// See mapped_file.hpp.
#include "formats/mapped_file.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <memory>
#include <stdexcept>
#include <system_error>

namespace align {

mapped_file::mapped_file(const std::filesystem::path& path) {
  const auto fail = [&](const std::string& before, const std::string& after) {
    throw std::runtime_error(before + path.string() + after);
  };
  std::error_code error;
  if (!std::filesystem::exists(path, error)) fail("there is no file ", "");
  if (std::filesystem::is_directory(path, error)) fail("", " is a folder, not a file");
  if (!std::filesystem::is_regular_file(path, error)) {
    fail("", " is no regular file");  // a pipe would wait for who writes into it
  }
  const int descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) fail("cannot open ", " for reading");
  // The mapping outlives the descriptor.
  const auto close_it = [](const int* open_one) { close(*open_one); };
  const std::unique_ptr<const int, decltype(close_it)> closer(&descriptor, close_it);

  struct stat about {};
  if (fstat(descriptor, &about) != 0 || !S_ISREG(about.st_mode)) fail("", " is no regular file");
  const auto size = static_cast<std::size_t>(about.st_size);
  if (size == 0) return;  // which mmap refuses
  void* const start = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, descriptor, 0);
  if (start == MAP_FAILED) fail("cannot map ", " into memory");
  bytes_ = {static_cast<const std::byte*>(start), size};
}

mapped_file::~mapped_file() {
  if (!bytes_.empty()) munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

}  // namespace align
