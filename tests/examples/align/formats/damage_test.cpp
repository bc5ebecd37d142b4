// Files with a byte changed, or cut short: each is read, or refused by std::runtime_error, and
// nothing else happens. fuzz_gguf.cpp and fuzz_safetensors.cpp search more widely, where they are
// built.
#include <stdexcept>

#include "catch.hpp"
#include "reading.hpp"

using namespace align;

namespace {

// Whether it was refused; any other exception fails the test.
bool refused(void (*read)(std::span<const std::byte>), const std::string& bytes) {
  // On the heap and exactly as long, so that a sanitizer sees what is read beyond.
  const std::vector<char> exact(bytes.begin(), bytes.end());
  try {
    read(std::as_bytes(std::span(exact)));
  } catch (const std::runtime_error&) {
    return true;
  }
  return false;
}

void damage(void (*read)(std::span<const std::byte>), const std::string& valid) {
  CHECK_FALSE(refused(read, valid));
  std::size_t refusals = 0;
  for (std::size_t i = 0; i < valid.size(); ++i) {
    for (const char mask : {'\x01', '\x80', '\xff'}) {
      std::string changed = valid;
      changed[i] = static_cast<char>(changed[i] ^ mask);
      refusals += refused(read, changed);
    }
  }
  CHECK(refusals > 0);
  std::size_t cut = 0;
  for (std::size_t size = 0; size < valid.size(); ++size)
    cut += refused(read, valid.substr(0, size));
  CHECK(cut > valid.size() / 2);
}

}  // namespace

TEST_CASE("a damaged GGUF file is read or refused") { damage(read_as_gguf, tiny_gguf()); }

TEST_CASE("a damaged safetensors file is read or refused") {
  damage(read_as_safetensors, tiny_safetensors());
}

TEST_CASE("a damaged config.json is read or refused") { damage(read_as_config, tiny_config()); }
