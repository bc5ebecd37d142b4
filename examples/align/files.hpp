// Whole files: reading (gzip unpacked on the way), fingerprints, and writing that never leaves a
// half-written file behind. All throw std::runtime_error with the path in one clear sentence.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

namespace align {

// The bytes as they are on disk.
std::string read_file(const std::filesystem::path& path);

// The same, unpacked when the content is gzip.
std::string unpack(std::string bytes, const std::filesystem::path& path);

// Throws unless the bytes have this SHA-256 (64 lower-case hexadecimal digits).
void require_sha256(std::string_view bytes, std::string_view expected,
                    const std::filesystem::path& path);

// Writes a temporary file beside `path`, then renames it.
void write_atomically(const std::filesystem::path& path, std::string_view bytes);

}  // namespace align
