// GGUF files, versions 2 and 3: metadata, kept in order and with exact types so that it can be
// passed on, and tensors. Every length in a file is checked before it is believed, and every
// refusal is a std::runtime_error of one sentence that begins with the file's name.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "formats/mapped_file.hpp"
#include "formats/stored_tensor.hpp"

namespace align {

// The index of an alternative is the number of its type in the file. Arrays of arrays, which
// nothing writes, are refused: 9 is their place.
using gguf_array =
    std::variant<std::vector<std::uint8_t>, std::vector<std::int8_t>, std::vector<std::uint16_t>,
                 std::vector<std::int16_t>, std::vector<std::uint32_t>, std::vector<std::int32_t>,
                 std::vector<float>, std::vector<bool>, std::vector<std::string>, std::monostate,
                 std::vector<std::uint64_t>, std::vector<std::int64_t>, std::vector<double>>;
using gguf_value = std::variant<std::uint8_t, std::int8_t, std::uint16_t, std::int16_t,
                                std::uint32_t, std::int32_t, float, bool, std::string, gguf_array,
                                std::uint64_t, std::int64_t, double>;

class gguf_metadata {
 public:
  using entry = std::pair<std::string, gguf_value>;

  gguf_metadata() = default;
  explicit gguf_metadata(std::string file) : file_(std::move(file)) {}

  const std::vector<entry>& entries() const { return entries_; }
  const gguf_value* find(std::string_view key) const;  // null: there is none
  void set(std::string_view key, gguf_value value);    // in its old place, or at the end
  void append(std::string key, gguf_value value) {     // of a key that is new
    entries_.emplace_back(std::move(key), std::move(value));
  }
  const std::string& file() const { return file_; }

  // These throw where the key is missing or its value is of another type. Of whole numbers and of
  // real ones every width will do.
  const std::string& text(std::string_view key) const;
  bool flag(std::string_view key) const;
  std::uint64_t whole(std::string_view key) const;
  double real(std::string_view key) const;  // a float counts as the shortest decimal that means it

  template <class T>
  const std::vector<T>& array(std::string_view key) const {
    const auto* array = std::get_if<gguf_array>(&at(key));
    const auto* items = array == nullptr ? nullptr : std::get_if<std::vector<T>>(array);
    if (items == nullptr) refuse(key, "an array of the expected type");
    return *items;
  }

 private:
  const gguf_value& at(std::string_view key) const;
  [[noreturn]] void refuse(std::string_view key, const char* expected) const;

  std::string file_ = "metadata";  // for sentences
  std::vector<entry> entries_;
};

struct gguf_contents {
  gguf_metadata metadata;
  std::vector<stored_tensor> tensors;  // in the file's order
};

// The tensors point into `bytes`; `name` is for sentences.
gguf_contents parse_gguf(std::span<const std::byte> bytes, const std::string& name);

struct gguf_file {
  mapped_file file;
  gguf_contents contents;
};

gguf_file read_gguf(const std::filesystem::path& path);

// Version 3, with the alignment that the metadata asks for.
void write_gguf(const std::filesystem::path& path, const gguf_metadata& metadata,
                std::span<const planned_tensor> tensors, const row_source& source);

// "general.alignment", 32 without it.
std::size_t alignment_of(const gguf_metadata& metadata);

}  // namespace align
