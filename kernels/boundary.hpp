// The border between C and C++: nothing is thrown across it, structs of other versions are read
// safely, rows are checked before they become spans. Shared by the files of the C API.
#pragma once

#include <prospect/c/prospect.h>
#include <prospect/core/dtype.hpp>
#include <prospect/layout.hpp>

#include <algorithm>
#include <cstring>
#include <exception>
#include <new>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>

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

/// Runs the body of a C function: every way out of it becomes a status.
template <class Body>
prospect_status guard(prospect_error* error, Body&& body) noexcept {
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

/// Copies a struct that starts with struct_size. Fields the caller's version lacks read as zero;
/// fields this version lacks must be zero.
template <class T>
T versioned(const T* pointer, const char* name) {
  const std::size_t theirs = require(pointer, name).struct_size;
  // The upper bound catches a field that was never initialised before it is believed.
  if (theirs < sizeof(pointer->struct_size) || theirs > 4096) {
    fail(PROSPECT_INVALID_ARGUMENT, std::string{name} + ".struct_size is not set");
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
strided_span<T> row(const char* name, T* data, std::int64_t size, std::int64_t stride) {
  if (size < 0) fail(PROSPECT_INVALID_ARGUMENT, std::string{name} + ".size is negative");
  if (size == 0) return {};
  if (data == nullptr) fail(PROSPECT_INVALID_ARGUMENT, std::string{name} + ".data is NULL");
  if (reinterpret_cast<std::uintptr_t>(data) % alignof(T) != 0) {
    fail(PROSPECT_INVALID_ARGUMENT, std::string{name} + ".data is not aligned to its elements");
  }
  return {data, size, stride};
}
template <class T>
strided_span<const T> in(const char* name, const prospect_const_row& r) {
  return row(name, static_cast<const T*>(r.data), r.size, r.stride);
}
template <class T>
strided_span<T> out(const char* name, const prospect_row& r) {
  return row(name, static_cast<T*>(r.data), r.size, r.stride);
}

inline void check_reserved(const char* name, std::int32_t reserved) {
  if (reserved != 0) fail(PROSPECT_UNSUPPORTED, std::string{name} + ".reserved must be 0");
}

inline index_row indices(const char* name, const prospect_indices& r) {
  check_reserved(name, r.reserved);
  switch (r.dtype) {
    case PROSPECT_I32:
      return in<std::int32_t>(name, r.row);
    case PROSPECT_I64:
      return in<std::int64_t>(name, r.row);
    default:
      fail(PROSPECT_UNSUPPORTED, std::string{name} + ".dtype must be PROSPECT_I32 or _I64");
  }
}

/// Calls `body` with a value of the storage type that `dtype` names.
template <class Body>
void with_storage(std::int32_t dtype, Body&& body) {
  switch (dtype) {
    case PROSPECT_F32:
      return body(float{});
    case PROSPECT_F64:
      return body(double{});
    case PROSPECT_F16:
      return body(float16{});
    case PROSPECT_BF16:
      return body(bfloat16{});
    default:
      fail(PROSPECT_UNSUPPORTED, "dtype must be PROSPECT_F32, _F64, _F16 or _BF16");
  }
}
template <class Body>
void with_arithmetic(std::int32_t dtype, Body&& body) {
  switch (dtype) {
    case PROSPECT_F32:
      return body(float{});
    case PROSPECT_F64:
      return body(double{});
    default:
      fail(PROSPECT_UNSUPPORTED, "dtype must be PROSPECT_F32 or PROSPECT_F64");
  }
}

}  // namespace prospect::kernels
