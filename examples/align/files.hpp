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

// Of a file that need not fit into memory.
std::string sha256_of_file(const std::filesystem::path& path);

// Throws unless the bytes have this SHA-256 (64 lower-case hexadecimal digits).
void require_sha256(std::string_view bytes, std::string_view expected,
                    const std::filesystem::path& path);

// Throws where a later `write_atomically` could not write this file: so that hours of training do
// not end in a complaint.
void require_writable(const std::filesystem::path& path);

// Makes the folder, unless it is there, and throws where no file can be put into it.
void require_folder(const std::filesystem::path& path);

// Writes a temporary file beside `path`, then renames it.
void write_atomically(const std::filesystem::path& path, std::string_view bytes);

}  // namespace align
