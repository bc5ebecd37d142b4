// How a call is refused: the one place through which every header does it. With exceptions it is a
// std::invalid_argument; a program that is built without them (-fno-exceptions) gives a function
// of its own.
#pragma once

#include <prospect/config.hpp>

#if defined(__cpp_exceptions)
#include <stdexcept>
#define PROSPECT_TRY try
#define PROSPECT_CATCH_ALL catch (...)
#else
#include <cstdlib>
#define PROSPECT_TRY if constexpr (true)
#define PROSPECT_CATCH_ALL else
#endif

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2 {

#if !defined(__cpp_exceptions)
/// Written by whoever builds the headers without exceptions, once in the program; without it, the
/// program does not link. Gets what the exception would say ("prospect: targets has ...") before
/// any work is done, and must not return: if it does, std::abort is called.
///
/// ```cpp
/// void prospect::refused(const char* message) { my_engine::fatal(message); }
/// ```
void refused(const char* message);
#endif

namespace detail {

/// @param message a whole sentence that begins with "prospect: " and names the argument.
[[noreturn]] PROSPECT_INLINE void refuse(const char* message) {
#if defined(__cpp_exceptions)
  throw std::invalid_argument(message);
#else
  refused(message);
  std::abort();
#endif
}

}  // namespace detail

}  // namespace prospect::inline v2
PROSPECT_STRICT_END
