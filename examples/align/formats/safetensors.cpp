// See safetensors.hpp.
#include "formats/safetensors.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <set>
#include <stdexcept>
#include <utility>

#include "files.hpp"
#include "formats/json_reading.hpp"

namespace align {
namespace fs = std::filesystem;
using json = nlohmann::json;
namespace {

struct named_type {
  const char* name;
  element_type type;
};
constexpr std::array types{named_type{"F32", element_type::f32},
                           named_type{"F16", element_type::f16},
                           named_type{"BF16", element_type::bf16}};

stored_tensor read_entry(const std::string& name, const json& about,
                         std::span<const std::byte> data, const std::string& file) {
  const auto fail = [&](const std::string& what) {
    throw std::runtime_error(file + ": the tensor " + name + " " + what);
  };
  if (!about.is_object()) fail("is not described by a JSON object");
  const json_lookup entry(about, file + ": the tensor " + name);
  stored_tensor tensor;
  tensor.name = name;
  const std::string stated_type = entry.text("dtype");
  const auto type = std::find_if(types.begin(), types.end(),
                                 [&](const named_type& t) { return stated_type == t.name; });
  if (type == types.end()) {
    fail("is of type " + stated_type + ", and only F32, F16 and BF16 are read");
  }
  tensor.type = type->type;

  const auto whole_numbers = [&](const char* key) {
    const json& list = entry.at(key);
    std::vector<std::size_t> numbers;
    if (!list.is_array()) fail("has no list of " + std::string(key));
    for (const json& number : list) {
      if (!number.is_number_unsigned())
        fail("has something else than sizes as " + std::string(key));
      numbers.push_back(number.get<std::size_t>());
    }
    return numbers;
  };
  tensor.shape = whole_numbers("shape");
  const std::vector<std::size_t> ends = whole_numbers("data_offsets");
  if (ends.size() != 2 || ends[0] > ends[1] || ends[1] > data.size()) {
    fail("lies beyond the end of the file");
  }
  if (byte_count(tensor.type, tensor.shape) != ends[1] - ends[0]) {
    fail("has another number of bytes than its shape " + to_string(tensor.shape) + " needs");
  }
  tensor.bytes = data.subspan(ends[0], ends[1] - ends[0]);
  return tensor;
}

// A file of an index must lie in the folder itself.
bool is_plain_name(const std::string& name) {
  return !name.empty() && name != "." && name != ".." &&
         name.find_first_of(std::string_view("/\\\0", 3)) == std::string::npos;
}

}  // namespace

std::vector<stored_tensor> parse_safetensors(std::span<const std::byte> bytes,
                                             const std::string& name) {
  constexpr std::uint64_t longest_header = 100'000'000;  // the format's own limit
  const auto fail = [&](const std::string& what) { throw std::runtime_error(name + ": " + what); };
  std::uint64_t length = 0;
  if (bytes.size() < sizeof length) fail("the file ends too early");
  std::memcpy(&length, bytes.data(), sizeof length);
  bytes = bytes.subspan(sizeof length);
  if (length > longest_header) fail("this is no safetensors file");
  if (length > bytes.size()) fail("the file ends too early");
  const std::string_view header(reinterpret_cast<const char*>(bytes.data()), length);
  const std::span<const std::byte> data = bytes.subspan(length);
  if (!header.starts_with('{')) fail("this is no safetensors file");

  std::vector<stored_tensor> tensors;
  const json entries = parse_json_object(header, name);
  for (const auto& [tensor, about] : entries.items()) {
    if (tensor != "__metadata__") tensors.push_back(read_entry(tensor, about, data, name));
  }
  const auto place = [](const stored_tensor& t) {
    return std::pair(t.bytes.data(), t.bytes.size());
  };
  std::sort(tensors.begin(), tensors.end(),
            [&](const auto& a, const auto& b) { return place(a) < place(b); });
  require_disjoint(tensors, name);
  const std::byte* end = data.data();
  for (const stored_tensor& t : tensors) {
    if (t.bytes.data() != end) fail("there are bytes of no tensor before " + t.name);
    end += t.bytes.size();
  }
  if (end != data.data() + data.size()) fail("there are bytes of no tensor at the end");
  return tensors;
}

safetensors_folder read_safetensors(const fs::path& folder) {
  const fs::path single = folder / "model.safetensors";
  const fs::path index = folder / "model.safetensors.index.json";
  std::error_code error;
  safetensors_folder read;
  if (fs::exists(single, error)) {
    read.files.emplace_back(single);
    read.tensors = parse_safetensors(read.files.back().bytes(), single.string());
    return read;
  }
  if (!fs::exists(index, error)) {
    throw std::runtime_error(folder.string() +
                             " has neither model.safetensors nor model.safetensors.index.json");
  }

  const json about = parse_json_object(read_file(index), index.string());
  const json_lookup lookup(about, index.string());
  const json& map = lookup.at("weight_map");
  if (!map.is_object()) lookup.fail("\"weight_map\" must be a JSON object");
  std::set<std::string> names;
  for (const auto& [tensor, file] : map.items()) {
    if (!file.is_string() || !is_plain_name(file.get<std::string>())) {
      lookup.fail("the tensor " + tensor + " is in no file of the folder");
    }
    names.insert(file.get<std::string>());
  }
  std::set<std::string> found;
  for (const std::string& name : names) {
    read.files.emplace_back(folder / name);
    const std::string path = (folder / name).string();
    for (stored_tensor& tensor : parse_safetensors(read.files.back().bytes(), path)) {
      const auto place = map.find(tensor.name);
      if (place == map.end() || *place != name) {
        throw std::runtime_error(path + ": the index does not place the tensor " + tensor.name +
                                 " here");
      }
      found.insert(tensor.name);
      read.tensors.push_back(std::move(tensor));
    }
  }
  for (const auto& [tensor, file] : map.items()) {
    if (!found.contains(tensor)) {
      lookup.fail("the tensor " + tensor + " is not in " + file.get<std::string>());
    }
  }
  return read;
}

void write_safetensors(const fs::path& path, std::span<const planned_tensor> tensors,
                       const row_source& source) {
  constexpr std::size_t alignment = 8;
  nlohmann::ordered_json entries;
  entries["__metadata__"] = {{"format", "pt"}};  // which Hugging Face's loader asks for
  std::size_t offset = 0;
  for (const planned_tensor& t : tensors) {
    const auto type = std::find_if(types.begin(), types.end(),
                                   [&](const named_type& known) { return known.type == t.type; });
    if (type == types.end()) {
      throw std::runtime_error("a safetensors file does not hold " +
                               std::string(layout_of(t.type).name));
    }
    const std::size_t end = offset + byte_count(t);
    entries[t.name] = {{"dtype", type->name}, {"shape", t.shape}, {"data_offsets", {offset, end}}};
    offset = end;
  }
  std::string header = entries.dump();
  header.resize((header.size() + alignment - 1) / alignment * alignment, ' ');
  const std::uint64_t length = header.size();

  output_file out(path);
  out.write(std::as_bytes(std::span(&length, 1)));
  out.write(header);
  for (std::size_t i = 0; i < tensors.size(); ++i) out.write(tensors[i], i, source);
  out.commit();
}

}  // namespace align
