// Writing GGUF files. See gguf.hpp.
#include <cstdint>
#include <type_traits>

#include "formats/gguf.hpp"

namespace align {
namespace {

template <class T>
void put(std::string& out, T value) {
  static_assert(std::is_arithmetic_v<T>);
  out.append(reinterpret_cast<const char*>(&value), sizeof value);
}

void put(std::string& out, bool value) { out.push_back(value ? '\1' : '\0'); }

void put(std::string& out, const std::string& text) {
  put(out, std::uint64_t{text.size()});
  out += text;
}

void put(std::string&, std::monostate) {}  // no array is of arrays

template <class T>
void put(std::string& out, const std::vector<T>& items) {
  put(out, std::uint64_t{items.size()});
  for (const T& item : items) put(out, item);
}

void put(std::string& out, const gguf_array& array) {
  put(out, static_cast<std::uint32_t>(array.index()));
  std::visit([&](const auto& items) { put(out, items); }, array);
}

void put(std::string& out, const gguf_value& value) {
  put(out, static_cast<std::uint32_t>(value.index()));
  std::visit([&](const auto& kind) { put(out, kind); }, value);
}

std::size_t padded(std::size_t size, std::size_t alignment) {
  return (size + alignment - 1) / alignment * alignment;
}

void pad(output_file& out, std::size_t alignment) {
  out.write(std::string(padded(out.written(), alignment) - out.written(), '\0'));
}

}  // namespace

void write_gguf(const std::filesystem::path& path, const gguf_metadata& metadata,
                std::span<const planned_tensor> tensors, const row_source& source) {
  const std::size_t alignment = alignment_of(metadata);
  std::string header = "GGUF";
  put(header, std::uint32_t{3});
  put(header, std::uint64_t{tensors.size()});
  put(header, std::uint64_t{metadata.entries().size()});
  for (const auto& [key, value] : metadata.entries()) {
    put(header, key);
    put(header, value);
  }
  std::size_t offset = 0;
  for (const planned_tensor& t : tensors) {
    put(header, t.name);
    put(header, static_cast<std::uint32_t>(t.shape.size()));
    for (auto size = t.shape.rbegin(); size != t.shape.rend(); ++size) {
      put(header, std::uint64_t{*size});
    }
    put(header, static_cast<std::uint32_t>(t.type));
    put(header, std::uint64_t{offset});
    offset += padded(byte_count(t), alignment);
  }

  output_file out(path);
  out.write(header);
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    pad(out, alignment);
    out.write(tensors[i], i, source);
  }
  pad(out, alignment);  // other readers expect it after the last one too
  out.commit();
}

}  // namespace align
