// What a refused call said: tests check that the sentence names the argument.

#pragma once

#include <stdexcept>
#include <string>

namespace testing {

/// The message of the std::invalid_argument that `call` throws, or "accepted".
template <class Call>
std::string refusal(const Call& call) {
  try {
    call();
  } catch (const std::invalid_argument& error) {
    return error.what();
  }
  return "accepted";
}

/// Whether `call` is refused with a message that contains `argument`.
template <class Call>
bool refuses(const std::string& argument, const Call& call) {
  const std::string message = refusal(call);
  return message != "accepted" && message.find(argument) != std::string::npos;
}

}  // namespace testing
