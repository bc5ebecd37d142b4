// Rows and matrices of the C API as views of the library, each checked by name: what it is made of,
// where it lies, how large it is. Nothing is read: they may lie on a device.
#pragma once

#include "boundary.hpp"

#include <prospect/any_row.hpp>
#include <prospect/core/extent.hpp>
#include <prospect/core/matrix_view.hpp>
#include <prospect/layout.hpp>

#include <string>

namespace prospect::kernels {

/// Whether a caller means a row: one of size 0 may be an empty batch's.
inline bool given(const prospect_row& r) { return r.size != 0 || r.data != nullptr; }

[[noreturn]] inline void wrong_dtype(const char* name, const char* what) {
  fail(PROSPECT_UNSUPPORTED, std::string{name} + ".dtype must be " + what);
}

/// Refuses a row that does not describe memory of elements of so many bytes. A row that is not
/// given has no dtype.
inline void check_row(const char* name, const prospect_row& r) {
  check_reserved(name, r.reserved);
  const std::size_t bytes = prospect_dtype_size(r.dtype);
  if (bytes == 0) wrong_dtype(name, "one of prospect_dtype");
  if (const char* why = detail::row_problem(r.data, r.size, r.stride, bytes, bytes)) {
    fail(PROSPECT_INVALID_ARGUMENT, std::string{name} + " " + why);
  }
}

template <class T>
struct element;
template <>
struct element<float> {
  static bool is(std::int32_t dtype) { return dtype == PROSPECT_F32; }
  static constexpr const char* name = "PROSPECT_F32";
};
template <>
struct element<double> {
  static bool is(std::int32_t dtype) { return dtype == PROSPECT_F64; }
  static constexpr const char* name = "PROSPECT_F64";
};
template <>
struct element<std::int32_t> {
  static bool is(std::int32_t dtype) { return dtype == PROSPECT_I32; }
  static constexpr const char* name = "PROSPECT_I32";
};
template <>
struct element<std::int64_t> {
  static bool is(std::int32_t dtype) { return dtype == PROSPECT_I64; }
  static constexpr const char* name = "PROSPECT_I64";
};
template <>
struct element<std::uint8_t> {
  static bool is(std::int32_t dtype) { return dtype == PROSPECT_U8 || dtype == PROSPECT_BOOL; }
  static constexpr const char* name = "PROSPECT_U8 or PROSPECT_BOOL";
};

/// As a row of T, const where it is read.
template <class T>
strided_span<T> row(const char* name, const prospect_row& r) {
  check_row(name, r);
  if (r.size == 0) return {};
  using E = element<std::remove_const_t<T>>;
  if (!E::is(r.dtype)) wrong_dtype(name, E::name);
  return {static_cast<T*>(r.data), r.size, r.stride};
}

static_assert(PROSPECT_F32 == static_cast<int>(dtype::f32) &&
              PROSPECT_F64 == static_cast<int>(dtype::f64) &&
              PROSPECT_F16 == static_cast<int>(dtype::f16) &&
              PROSPECT_BF16 == static_cast<int>(dtype::bf16));

/// As a row of any real numbers, `any_row` or `const_any_row`.
template <class Row>
Row real_row(const char* name, const prospect_row& r) {
  check_row(name, r);
  if (r.size == 0) return {};
  if (r.dtype < PROSPECT_F32 || r.dtype > PROSPECT_BF16) {
    wrong_dtype(name, "PROSPECT_F32, _F64, _F16 or _BF16");
  }
  return {r.data, static_cast<dtype>(r.dtype), r.size, r.stride};
}

inline index_row indices(const char* name, const prospect_row& r) {
  check_row(name, r);
  // An empty row still says that there are no rows, whatever it is made of.
  if (r.size == 0) return {};
  switch (r.dtype) {
    case PROSPECT_I32:
      return row<const std::int32_t>(name, r);
    case PROSPECT_I64:
      return row<const std::int64_t>(name, r);
    default:
      wrong_dtype(name, "PROSPECT_I32 or PROSPECT_I64");
  }
}

/// Calls body(chosen, rejected) with rows of indices that are written, both of one type.
template <class Body>
void with_indices(const prospect_row& chosen, const prospect_row& rejected, const Body& body) {
  const auto as = [&]<class Index>(Index) {
    body(row<Index>("chosen", chosen), row<Index>("rejected", rejected));
  };
  if (chosen.size != 0 && chosen.dtype == PROSPECT_I32) return as(std::int32_t{});
  as(std::int64_t{});
}

inline mask_row mask(const char* name, const prospect_row& r) {
  check_row(name, r);
  if (r.size == 0) return {};
  switch (r.dtype) {
    case PROSPECT_U8:
    case PROSPECT_BOOL:
      return row<const std::uint8_t>(name, r);
    case PROSPECT_I32:
      return row<const std::int32_t>(name, r);
    case PROSPECT_F32:
      return row<const float>(name, r);
    default:
      wrong_dtype(name, "PROSPECT_U8, _BOOL, _I32 or _F32");
  }
}

/// A matrix of S, which `with_storage` has found in it.
template <class S>
matrix_view<S> matrix(const char* name, const prospect_matrix& m) {
  check_reserved(name, m.reserved);
  const matrix_view<S> view{static_cast<S*>(m.data), m.rows, m.columns, m.pitch};
  if (const char* why = detail::view_problem(view)) {
    fail(PROSPECT_INVALID_ARGUMENT, std::string{name} + " " + why);
  }
  return view;
}

/// Calls `body` with a value of the storage type that `dtype` names.
template <class Body>
void with_storage(const char* name, std::int32_t dtype, Body&& body) {
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
      wrong_dtype(name, "PROSPECT_F32, _F64, _F16 or _BF16");
  }
}
/// The same where only fp32 and fp64 will do.
template <class Body>
void with_arithmetic(const char* name, std::int32_t dtype, Body&& body) {
  switch (dtype) {
    case PROSPECT_F32:
      return body(float{});
    case PROSPECT_F64:
      return body(double{});
    default:
      wrong_dtype(name, "PROSPECT_F32 or PROSPECT_F64");
  }
}

}  // namespace prospect::kernels
