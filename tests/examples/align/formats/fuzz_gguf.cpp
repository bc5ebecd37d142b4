// Any bytes as a GGUF file: read or refused. For libFuzzer.
#include <cstdint>
#include <stdexcept>

#include "reading.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    align::read_as_gguf(std::as_bytes(std::span(data, size)));
  } catch (const std::runtime_error&) {
  }
  return 0;
}
