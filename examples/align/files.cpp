// See files.hpp.
#include "files.hpp"

#include <unistd.h>

#include <array>
#include <fstream>
#include <iterator>
#include <memory>
#include <stdexcept>
#include <system_error>
#include <utility>

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

}  // namespace

std::string read_file(const fs::path& path) {
  std::error_code error;
  if (!fs::exists(path, error)) fail("there is no file " + path.string());
  if (fs::is_directory(path, error)) fail(path.string() + " is a folder, not a file");
  std::ifstream in(path, std::ios::binary);
  if (!in) fail("cannot open " + path.string() + " for reading");
  std::string bytes(std::istreambuf_iterator<char>(in), {});
  if (in.bad()) fail("cannot read " + path.string());
  return bytes;
}

std::string unpack(std::string bytes, const fs::path& path) {
  return is_gzip(bytes) ? inflate_gzip(bytes, path) : std::move(bytes);
}

void require_sha256(std::string_view bytes, std::string_view expected, const fs::path& path) {
  const std::string found = sha256(bytes);
  if (found != expected) {
    fail(path.string() + " differs from the published file: its SHA-256 is " + found +
         " instead of " + std::string(expected));
  }
}

void write_atomically(const fs::path& given, std::string_view bytes) {
  std::error_code absent;
  // Through a link, not over it; and a device or pipe is written to, never replaced by a file.
  const fs::path path = fs::is_symlink(given, absent) ? fs::weakly_canonical(given) : given;
  if (fs::exists(path, absent) && !fs::is_regular_file(path, absent)) {
    std::ofstream out(path, std::ios::binary);
    out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    if (!out.flush()) fail("cannot write " + path.string());
    return;
  }
  // In the same folder, because rename is atomic only within one file system; with the process
  // number, because two runs may write the same report.
  fs::path temporary = path;
  temporary += ".tmp" + std::to_string(getpid());
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
