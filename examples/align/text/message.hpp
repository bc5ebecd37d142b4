// One turn of a conversation, before any template has made a text of it.
#pragma once

#include <string>

namespace align {

struct message {
  std::string role, content;  // role: "system", "user" or "assistant"

  friend bool operator==(const message&, const message&) = default;
};

}  // namespace align
