// Valid files for the fuzzers to start from: fuzz_seeds FOLDER makes FOLDER/gguf and
// FOLDER/safetensors anew.
#include <cstring>
#include <string>

#include "reading.hpp"

using namespace align;

namespace {

// One tensor, and room for any type of it: writers know fewer types than readers.
std::string one_tensor(std::uint32_t type) {
  const scratch here;
  const auto path = here.folder() / "x.gguf";
  const std::vector<planned_tensor> plans{{.name = "token_embd.weight", .shape = {2, 256}}};
  write_gguf(path, gguf_metadata(), plans, [](std::size_t, std::size_t, std::span<float>) {});
  std::string bytes = scratch::read(path);
  const std::size_t name = bytes.find(plans[0].name);
  const std::size_t after = name + plans[0].name.size() + sizeof(std::uint32_t) + 2 * 8;
  std::memcpy(bytes.data() + after, &type, sizeof type);
  return bytes;
}

}  // namespace

int main(int argc, char* argv[]) {
  if (argc != 2) return 1;
  const std::filesystem::path folder = argv[1];
  std::filesystem::remove_all(folder);
  const auto write = [&](const char* kind, const std::string& name, const std::string& bytes) {
    std::filesystem::create_directories(folder / kind);
    std::ofstream out(folder / kind / name, std::ios::binary);
    return static_cast<bool>(out.write(bytes.data(), static_cast<std::streamsize>(bytes.size())));
  };
  bool written = write("gguf", "model", tiny_gguf());
  for (std::uint32_t type = 0; type < 32; ++type) {
    if (!element_type_of(type)) continue;
    written &= write("gguf", "type_" + std::to_string(type), one_tensor(type));
  }
  written &= write("safetensors", "model", tiny_safetensors());
  written &= write("safetensors", "config", tiny_config());
  return written ? 0 : 1;
}
