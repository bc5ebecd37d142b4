// SHA-256, to recognise the published data files and what a run was made from.
#pragma once

#include <memory>
#include <string>
#include <string_view>

namespace align {

// 64 lower-case hexadecimal digits.
std::string sha256(std::string_view bytes);

// The same for what comes in pieces.
class sha256_stream {
 public:
  sha256_stream();
  void add(std::string_view bytes);
  std::string digits();  // of all that was added; ends the stream

 private:
  struct context;
  struct closer {
    void operator()(context* open) const;
  };
  std::unique_ptr<context, closer> context_;
};

}  // namespace align
