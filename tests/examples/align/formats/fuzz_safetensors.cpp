// Any bytes as a safetensors file, or, where they begin as JSON, as a config.json: read or refused.
// For libFuzzer.
#include <cstdint>
#include <stdexcept>

#include "reading.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto read = size > 0 && data[0] == '{' ? align::read_as_config : align::read_as_safetensors;
  try {
    read(std::as_bytes(std::span(data, size)));
  } catch (const std::runtime_error&) {
  }
  return 0;
}
