// Looking things up in a GGUF file's metadata. See gguf.hpp.
#include <algorithm>
#include <array>
#include <bit>
#include <charconv>
#include <concepts>
#include <stdexcept>

#include "formats/gguf.hpp"

namespace align {
namespace {

constexpr std::array<const char*, std::variant_size_v<gguf_value>> type_names{
    "u8", "i8", "u16", "i16", "u32", "i32", "f32", "bool", "string", "array", "u64", "i64", "f64"};

// 1e-05f is 9.99999974737875e-06; whoever wrote it meant 1e-05, and other formats say so.
double shortest(float value) {
  std::array<char, 64> text{};
  const auto end = std::to_chars(text.data(), text.data() + text.size(), value).ptr;
  double meant = value;
  std::from_chars(text.data(), end, meant);
  return meant;
}

}  // namespace

const gguf_value* gguf_metadata::find(std::string_view key) const {
  const auto found = std::find_if(entries_.begin(), entries_.end(),
                                  [&](const entry& e) { return e.first == key; });
  return found == entries_.end() ? nullptr : &found->second;
}

void gguf_metadata::set(std::string_view key, gguf_value value) {
  const auto found = std::find_if(entries_.begin(), entries_.end(),
                                  [&](const entry& e) { return e.first == key; });
  if (found == entries_.end()) {
    entries_.emplace_back(key, std::move(value));
  } else {
    found->second = std::move(value);
  }
}

const gguf_value& gguf_metadata::at(std::string_view key) const {
  const gguf_value* found = find(key);
  if (found == nullptr) {
    throw std::runtime_error(file_ + ": the metadata lack " + std::string(key));
  }
  return *found;
}

void gguf_metadata::refuse(std::string_view key, const char* expected) const {
  throw std::runtime_error(file_ + ": " + std::string(key) + " must be " + expected +
                           " but is of type " + type_names[at(key).index()]);
}

const std::string& gguf_metadata::text(std::string_view key) const {
  const auto* value = std::get_if<std::string>(&at(key));
  if (value == nullptr) refuse(key, "a string");
  return *value;
}

bool gguf_metadata::flag(std::string_view key) const {
  const auto* value = std::get_if<bool>(&at(key));
  if (value == nullptr) refuse(key, "a bool");
  return *value;
}

std::uint64_t gguf_metadata::whole(std::string_view key) const {
  return std::visit(
      [&]<class T>(const T& value) -> std::uint64_t {
        if constexpr (std::integral<T> && !std::same_as<T, bool>) {
          if (std::in_range<std::uint64_t>(value)) return static_cast<std::uint64_t>(value);
        }
        refuse(key, "a whole number");
      },
      at(key));
}

double gguf_metadata::real(std::string_view key) const {
  const gguf_value& value = at(key);
  if (const auto* single = std::get_if<float>(&value)) return shortest(*single);
  if (const auto* twofold = std::get_if<double>(&value)) return *twofold;
  refuse(key, "a real number");
}

std::size_t alignment_of(const gguf_metadata& metadata) {
  constexpr const char* key = "general.alignment";
  if (metadata.find(key) == nullptr) return 32;
  const std::uint64_t alignment = metadata.whole(key);
  if (!std::has_single_bit(alignment) || alignment > (1U << 30U)) {
    throw std::runtime_error(metadata.file() + ": the alignment " + std::to_string(alignment) +
                             " is no power of two up to 2^30");
  }
  return static_cast<std::size_t>(alignment);
}

}  // namespace align
