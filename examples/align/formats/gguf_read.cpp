// Reading GGUF files. See gguf.hpp.
#include <algorithm>
#include <array>
#include <cstring>
#include <set>
#include <stdexcept>
#include <type_traits>

#include "formats/gguf.hpp"

namespace align {
namespace {

class cursor {
 public:
  cursor(std::span<const std::byte> bytes, const std::string& name) : bytes_(bytes), name_(name) {}

  std::size_t position() const { return position_; }
  std::size_t left() const { return bytes_.size() - position_; }

  [[noreturn]] void fail(const std::string& what) const {
    throw std::runtime_error(name_ + ": " + what);
  }

  std::span<const std::byte> take(std::uint64_t size) {
    if (size > left()) fail("the file ends too early");
    const auto taken = bytes_.subspan(position_, static_cast<std::size_t>(size));
    position_ += taken.size();
    return taken;
  }

  template <class T>
  T number() {
    T value;
    std::memcpy(&value, take(sizeof value).data(), sizeof value);
    return value;
  }

  std::string text() {
    const auto bytes = take(number<std::uint64_t>());
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }

  // A count of things of which each takes so many bytes at least: there is room for them.
  std::size_t count(std::uint64_t things, std::size_t bytes_each) const {
    if (things > left() / bytes_each) fail("the file ends too early");
    return static_cast<std::size_t>(things);
  }

 private:
  std::span<const std::byte> bytes_;
  std::string name_;
  std::size_t position_ = 0;
};

// ---------------------------------------------------------------------------------- metadata ---

template <class T>
T read(cursor& in) {
  if constexpr (std::is_same_v<T, std::string>) {
    return in.text();
  } else if constexpr (std::is_same_v<T, bool>) {
    const auto byte = in.number<std::uint8_t>();
    if (byte > 1) in.fail("a bool is neither 0 nor 1");
    return byte == 1;
  } else {
    return in.number<T>();
  }
}

template <class T>
constexpr std::size_t least_bytes =
    std::is_same_v<T, std::string> ? sizeof(std::uint64_t) : sizeof(T);

template <class T>
std::vector<T> read_items(cursor& in, std::uint64_t stated) {
  const std::size_t count = in.count(stated, least_bytes<T>);
  std::vector<T> items;
  items.reserve(count);
  for (std::size_t i = 0; i < count; ++i) items.push_back(read<T>(in));
  return items;
}

template <class Visit, std::size_t... numbers>
auto by_number(std::uint32_t type, const cursor& in, std::index_sequence<numbers...>, Visit visit) {
  using result = decltype(visit.template operator()<0>());
  result value;
  const bool known =
      ((type == numbers && (value = visit.template operator()<numbers>(), true)) || ...);
  if (!known) in.fail("there is no metadata type " + std::to_string(type));
  return value;
}

constexpr auto types = std::make_index_sequence<std::variant_size_v<gguf_value>>{};

gguf_array read_array(cursor& in) {
  const auto type = in.number<std::uint32_t>();
  const auto count = in.number<std::uint64_t>();
  return by_number(type, in, types, [&]<std::size_t number>() -> gguf_array {
    using item = std::variant_alternative_t<number, gguf_value>;
    if constexpr (std::is_same_v<item, gguf_array>) {
      in.fail("the metadata hold an array of arrays");
    } else {
      return read_items<item>(in, count);
    }
  });
}

gguf_value read_value(cursor& in) {
  const auto type = in.number<std::uint32_t>();
  return by_number(type, in, types, [&]<std::size_t number>() -> gguf_value {
    using kind = std::variant_alternative_t<number, gguf_value>;
    if constexpr (std::is_same_v<kind, gguf_array>) {
      return read_array(in);
    } else {
      return read<kind>(in);
    }
  });
}

gguf_metadata read_metadata(cursor& in, std::size_t count, const std::string& name) {
  gguf_metadata metadata(name);
  std::set<std::string> keys;
  for (std::size_t i = 0; i < count; ++i) {
    std::string key = in.text();
    gguf_value value = read_value(in);
    if (!keys.insert(key).second) in.fail("the metadata hold " + key + " twice");
    metadata.append(std::move(key), std::move(value));
  }
  return metadata;
}

// ----------------------------------------------------------------------------------- tensors ---

struct tensor_entry {
  stored_tensor tensor;
  std::uint64_t offset = 0;
  std::size_t size = 0;
};

tensor_entry read_entry(cursor& in) {
  constexpr std::uint32_t most_dimensions = 4;
  tensor_entry read;
  stored_tensor& t = read.tensor;
  t.name = in.text();
  const auto dimensions = in.number<std::uint32_t>();
  if (dimensions < 1 || dimensions > most_dimensions) {
    in.fail("the tensor " + t.name + " has " + std::to_string(dimensions) + " dimensions");
  }
  for (std::uint32_t i = 0; i < dimensions; ++i) t.shape.push_back(in.number<std::uint64_t>());
  std::reverse(t.shape.begin(), t.shape.end());  // the file has the innermost first
  const auto number = in.number<std::uint32_t>();
  const auto type = element_type_of(number);
  if (!type) {
    in.fail("the tensor " + t.name + " is of ggml type " + std::to_string(number) +
            ", and only f32, f16, bf16, q8_0, q4_0, q4_1, q4_k and q6_k are read");
  }
  t.type = *type;
  const auto size = byte_count(t.type, t.shape);
  if (!size || *size == 0) {
    in.fail("the tensor " + t.name + " has the impossible shape " + to_string(t.shape));
  }
  read.size = *size;
  read.offset = in.number<std::uint64_t>();
  return read;
}

// The header of a big-endian file starts with the version's bytes reversed.
void require_version(cursor& in) {
  constexpr std::uint32_t oldest = 2, newest = 3;
  const auto version = in.number<std::uint32_t>();
  if (version != 0 && (version & 0xffffU) == 0) in.fail("the file is big-endian");
  if (version < oldest || version > newest) {
    in.fail("the file is of GGUF version " + std::to_string(version) +
            ", and only 2 and 3 are read");
  }
}

}  // namespace

gguf_contents parse_gguf(std::span<const std::byte> bytes, const std::string& name) {
  constexpr std::string_view magic = "GGUF";
  constexpr std::size_t least_entry = 8 + 4 + 8 + 4 + 8, least_pair = 8 + 4 + 1;
  cursor in(bytes, name);
  if (bytes.size() < magic.size() || std::memcmp(bytes.data(), magic.data(), magic.size()) != 0) {
    in.fail("this is no GGUF file");
  }
  in.take(magic.size());
  require_version(in);
  const auto stated_tensors = in.number<std::uint64_t>(), stated_pairs = in.number<std::uint64_t>();
  const std::size_t tensors = in.count(stated_tensors, least_entry);
  const std::size_t pairs = in.count(stated_pairs, least_pair);

  gguf_contents contents{read_metadata(in, pairs, name), {}};
  const std::size_t alignment = alignment_of(contents.metadata);
  std::vector<tensor_entry> entries;
  std::set<std::string> names;
  for (std::size_t i = 0; i < tensors; ++i) {
    entries.push_back(read_entry(in));
    const stored_tensor& last = entries.back().tensor;
    if (!names.insert(last.name).second) in.fail("the tensor " + last.name + " is there twice");
  }

  const std::size_t padding = (alignment - in.position() % alignment) % alignment;
  if (!entries.empty()) in.take(padding);
  const std::span<const std::byte> data = bytes.subspan(in.position());
  for (tensor_entry& e : entries) {
    if (e.offset % alignment != 0) in.fail("the tensor " + e.tensor.name + " is not aligned");
    if (e.offset > data.size() || e.size > data.size() - e.offset) {
      in.fail("the tensor " + e.tensor.name + " lies beyond the end of the file");
    }
    e.tensor.bytes = data.subspan(static_cast<std::size_t>(e.offset), e.size);
    contents.tensors.push_back(std::move(e.tensor));
  }
  require_disjoint(contents.tensors, name);
  return contents;
}

gguf_file read_gguf(const std::filesystem::path& path) {
  mapped_file file(path);
  gguf_contents contents = parse_gguf(file.bytes(), path.string());
  return {std::move(file), std::move(contents)};
}

}  // namespace align
