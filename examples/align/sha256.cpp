// See sha256.hpp. OpenSSL's libcrypto does the work: it is maintained, and uses the instructions
// that processors have for it, which files of many gigabytes need.
#include "sha256.hpp"

#include <openssl/evp.h>

#include <array>
#include <stdexcept>

namespace align {

struct sha256_stream::context {
  EVP_MD_CTX* evp = EVP_MD_CTX_new();
};

void sha256_stream::closer::operator()(context* open) const {
  EVP_MD_CTX_free(open->evp);
  delete open;
}

namespace {

void require(bool worked) {
  if (!worked) throw std::runtime_error("OpenSSL cannot compute a SHA-256");
}

}  // namespace

sha256_stream::sha256_stream() : context_(new context) {
  require(context_->evp != nullptr && EVP_DigestInit_ex(context_->evp, EVP_sha256(), nullptr) == 1);
}

void sha256_stream::add(std::string_view bytes) {
  require(EVP_DigestUpdate(context_->evp, bytes.data(), bytes.size()) == 1);
}

std::string sha256_stream::digits() {
  std::array<unsigned char, EVP_MAX_MD_SIZE> hash;
  unsigned int size = 0;
  require(EVP_DigestFinal_ex(context_->evp, hash.data(), &size) == 1);
  std::string text;
  for (unsigned int i = 0; i < size; ++i) {
    text += "0123456789abcdef"[hash[i] >> 4];
    text += "0123456789abcdef"[hash[i] & 0xf];
  }
  return text;
}

std::string sha256(std::string_view bytes) {
  sha256_stream stream;
  stream.add(bytes);
  return stream.digits();
}

}  // namespace align
