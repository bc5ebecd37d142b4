// See files.hpp.
#include "files.hpp"

#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <fstream>
#include <iterator>
#include <memory>
#include <stdexcept>
#include <system_error>
#include <utility>
#include <vector>

#include "sha256.hpp"

#ifdef ALIGN_WITH_ZLIB
#include <zlib.h>
#endif

namespace align {
namespace fs = std::filesystem;
namespace {

[[noreturn]] void fail(const std::string& sentence) { throw std::runtime_error(sentence); }

bool is_gzip(std::string_view bytes) { return bytes.starts_with("\x1f\x8b"); }

#ifdef ALIGN_WITH_ZLIB
std::string inflate_gzip(std::string_view packed, const fs::path& path) {
  constexpr int gzip_window = 15 + 16;
  z_stream stream{};
  if (inflateInit2(&stream, gzip_window) != Z_OK) fail("cannot start zlib");
  const auto close = [](z_stream* open) { inflateEnd(open); };
  const std::unique_ptr<z_stream, decltype(close)> closer(&stream, close);

  std::string input(packed);  // zlib's interface is not const-correct
  stream.next_in = reinterpret_cast<Bytef*>(input.data());
  stream.avail_in = static_cast<uInt>(input.size());
  std::string unpacked;
  std::array<char, 1 << 16> buffer;
  int status = Z_OK;
  while (status != Z_STREAM_END || stream.avail_in > 0) {
    if (status == Z_STREAM_END) inflateReset(&stream);  // a gzip file may have several members
    stream.next_out = reinterpret_cast<Bytef*>(buffer.data());
    stream.avail_out = static_cast<uInt>(buffer.size());
    status = inflate(&stream, Z_NO_FLUSH);
    if (status != Z_OK && status != Z_STREAM_END) {
      fail(path.string() + " is a damaged or cut-off gzip file");
    }
    unpacked.append(buffer.data(), buffer.size() - stream.avail_out);
  }
  return unpacked;
}
#else
std::string inflate_gzip(std::string_view, const fs::path& path) {
  fail(path.string() +
       " is gzip-compressed and this program was built without zlib: unpack it with gunzip, or "
       "install zlib1g-dev and build again");
}
#endif

std::ifstream opened(const fs::path& path) {
  std::error_code error;
  if (!fs::exists(path, error)) fail("there is no file " + path.string());
  if (fs::is_directory(path, error)) fail(path.string() + " is a folder, not a file");
  std::ifstream in(path, std::ios::binary);
  if (!in) fail("cannot open " + path.string() + " for reading");
  return in;
}

// Through a link, not over it.
fs::path without_link(const fs::path& path) {
  std::error_code absent;
  return fs::is_symlink(path, absent) ? fs::weakly_canonical(path) : path;
}

[[noreturn]] void fail_to_write(const fs::path& path) {
  const std::error_code reason(errno, std::generic_category());
  fail("cannot write " + path.string() + ": " + reason.message());
}

// What `write_atomically` writes to at first. In the same folder, because rename is atomic only
// within one file system; with the process number, because two runs may write the same report.
fs::path temporary_for(fs::path path) { return path += ".tmp" + std::to_string(getpid()); }

// Only trying tells: rights, full disks and strange file systems have too many ways to say no.
void require_new_file(const fs::path& temporary, const fs::path& wanted) {
  if (!std::ofstream(temporary, std::ios::binary | std::ios::trunc)) fail_to_write(wanted);
  std::error_code ignored;
  fs::remove(temporary, ignored);
}

}  // namespace

std::string read_file(const fs::path& path) {
  std::ifstream in = opened(path);
  std::string bytes(std::istreambuf_iterator<char>(in), {});
  if (in.bad()) fail("cannot read " + path.string());
  return bytes;
}

std::string unpack(std::string bytes, const fs::path& path) {
  return is_gzip(bytes) ? inflate_gzip(bytes, path) : std::move(bytes);
}

std::string sha256_of_file(const fs::path& path) {
  std::ifstream in = opened(path);
  sha256_stream hash;
  std::vector<char> piece(std::size_t{1} << 20);
  while (in) {
    in.read(piece.data(), static_cast<std::streamsize>(piece.size()));
    hash.add({piece.data(), static_cast<std::size_t>(in.gcount())});
  }
  if (in.bad()) fail("cannot read " + path.string());
  return hash.digits();
}

void require_sha256(std::string_view bytes, std::string_view expected, const fs::path& path) {
  const std::string found = sha256(bytes);
  if (found != expected) {
    fail(path.string() + " differs from the published file: its SHA-256 is " + found +
         " instead of " + std::string(expected));
  }
}

void require_writable(const fs::path& given) {
  std::error_code error;
  const fs::path path = without_link(given);
  if (fs::is_directory(path, error)) fail("cannot write " + given.string() + ": it is a folder");
  if (fs::exists(path, error) && !fs::is_regular_file(path, error)) {
    if (access(path.c_str(), W_OK) != 0) fail_to_write(given);
    return;
  }
  const fs::path folder = path.has_parent_path() ? path.parent_path() : fs::path(".");
  if (!fs::is_directory(folder, error)) {
    fail("cannot write " + given.string() + ": there is no folder " + folder.string());
  }
  require_new_file(temporary_for(path), given);
}

void require_folder(const fs::path& path) {
  std::error_code error;
  if (fs::exists(path, error) && !fs::is_directory(path, error)) {
    fail(path.string() + " is a file, where a folder is needed");
  }
  fs::create_directories(path, error);
  if (error) fail("cannot make the folder " + path.string() + ": " + error.message());
  require_new_file(temporary_for(path / "trial"), path);
}

void write_atomically(const fs::path& given, std::string_view bytes) {
  std::error_code absent;
  // A device or pipe is written to, never replaced by a file.
  const fs::path path = without_link(given);
  if (fs::exists(path, absent) && !fs::is_regular_file(path, absent)) {
    std::ofstream out(path, std::ios::binary);
    out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    if (!out.flush()) fail("cannot write " + path.string());
    return;
  }
  const fs::path temporary = temporary_for(path);
  std::error_code error;
  {
    std::ofstream out(temporary, std::ios::binary | std::ios::trunc);
    out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    out.flush();
    if (!out) {
      fs::remove(temporary, error);
      fail("cannot write " + path.string());
    }
  }
  fs::rename(temporary, path, error);
  if (error) {
    const std::string reason = error.message();
    fs::remove(temporary, error);
    fail("cannot write " + path.string() + ": " + reason);
  }
}

}  // namespace align
