// The border between C and C++: nothing is thrown across it, and structs of other versions are read
// safely. Shared by the files of the C API.
#pragma once

#include <prospect/c/prospect.h>
#include <prospect/core/float_mode.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <new>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

namespace prospect::kernels {

/// An error that has a status of its own.
struct failure {
  prospect_status status;
  std::string message;
};

[[noreturn]] inline void fail(prospect_status status, std::string message) {
  throw failure{status, "prospect: " + std::move(message)};
}

inline prospect_status report(prospect_error* error, prospect_status status,
                              std::string_view message) {
  if (error != nullptr) {
    const std::size_t length = std::min(message.size(), sizeof(error->message) - 1);
    std::memcpy(error->message, message.data(), length);
    error->message[length] = '\0';
  }
  return status;
}

/// Runs the body of a C function, in the default floating-point mode: every way out of it becomes a
/// status.
template <class Body>
prospect_status guard(prospect_error* error, Body&& body) noexcept {
  const detail::default_float_mode mode;
  try {
    body();
    return PROSPECT_OK;
  } catch (const failure& f) {
    return report(error, f.status, f.message);
  } catch (const std::invalid_argument& e) {
    return report(error, PROSPECT_INVALID_ARGUMENT, e.what());
  } catch (const std::bad_alloc&) {
    return report(error, PROSPECT_INTERNAL_ERROR, "prospect: out of memory");
  } catch (const std::exception& e) {
    return report(error, PROSPECT_INTERNAL_ERROR, e.what());
  } catch (...) {
    return report(error, PROSPECT_INTERNAL_ERROR, "prospect: unknown error");
  }
}

template <class T>
T& require(T* pointer, const char* name) {
  if (pointer == nullptr) fail(PROSPECT_INVALID_ARGUMENT, std::string{name} + " is NULL");
  return *pointer;
}

/// Refuses what a check of the library found wrong, if anything.
inline void check(const char* problem) {
  if (problem != nullptr) fail(PROSPECT_INVALID_ARGUMENT, problem);
}

inline void check_reserved(const char* name, std::int32_t reserved) {
  if (reserved != 0) fail(PROSPECT_UNSUPPORTED, std::string{name} + ".reserved must be 0");
}

/// The size a struct had when it was first released: a smaller one was never filled in, and most of
/// it would read as "not given". Fields that are added later do not raise it.
template <class T>
inline constexpr std::size_t first_size = 0;
#define PROSPECT_FIRST_SIZE(type, last_field)     \
  template <>                                     \
  inline constexpr std::size_t first_size<type> = \
      offsetof(type, last_field) + sizeof(type::last_field)
PROSPECT_FIRST_SIZE(prospect_context, query);
PROSPECT_FIRST_SIZE(prospect_metrics, first_nonfinite);
PROSPECT_FIRST_SIZE(prospect_pairs, d_policy);
PROSPECT_FIRST_SIZE(prospect_completions, seen);
PROSPECT_FIRST_SIZE(prospect_layout, ends);
PROSPECT_FIRST_SIZE(prospect_tokens, reserved);
PROSPECT_FIRST_SIZE(prospect_token_results, target_is_argmax);
PROSPECT_FIRST_SIZE(prospect_token_coefficients, onehot);
PROSPECT_FIRST_SIZE(prospect_step, d_sequence);
PROSPECT_FIRST_SIZE(prospect_token_reducer, reserved);
PROSPECT_FIRST_SIZE(prospect_values, d_value);
PROSPECT_FIRST_SIZE(prospect_advantages, advantages);
PROSPECT_FIRST_SIZE(prospect_token_batch, d_entropy);
PROSPECT_FIRST_SIZE(prospect_head, lora);
PROSPECT_FIRST_SIZE(prospect_head_gradients, reserved);
PROSPECT_FIRST_SIZE(prospect_head_step, workspace);
PROSPECT_FIRST_SIZE(prospect_gemm_product, reserved);
PROSPECT_FIRST_SIZE(prospect_head_rows, gemm);
PROSPECT_FIRST_SIZE(prospect_device_head_step, gradients);
#undef PROSPECT_FIRST_SIZE

/// Copies a struct that starts with struct_size. Fields the caller's version lacks read as zero;
/// fields this version lacks must be zero.
template <class T>
T versioned(const T* pointer, const char* name) {
  static_assert(first_size<T> > 0 && first_size<T> <= sizeof(T));
  const std::size_t theirs = require(pointer, name).struct_size;
  // The upper bound catches a field that was never initialised before it is believed.
  if (theirs < first_size<T> || theirs > 4096) {
    fail(PROSPECT_INVALID_ARGUMENT,
         std::string{name} + ".struct_size is " + std::to_string(theirs) + ", and no version's");
  }
  const auto* bytes = reinterpret_cast<const unsigned char*>(pointer);
  for (std::size_t i = sizeof(T); i < theirs; ++i) {
    if (bytes[i] != 0) {
      fail(PROSPECT_UNSUPPORTED, std::string{name} + " uses fields of a newer version");
    }
  }
  T copy{};
  std::memcpy(&copy, pointer, std::min(theirs, sizeof(T)));
  return copy;
}
template <class T>
T versioned_or_zero(const T* pointer, const char* name) {
  return pointer == nullptr ? T{} : versioned(pointer, name);
}

}  // namespace prospect::kernels
