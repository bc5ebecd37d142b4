// What the tests of the C surface share: rows of containers with the dtype of their elements, and
// what a refused call said.

#pragma once

#include <prospect/c/prospect.h>
#include <prospect/core/dtype.hpp>
#include <prospect/core/matrix_view.hpp>

#include <concepts>
#include <cstdint>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "catch.hpp"
#include "cpu/rows.hpp"

namespace testing {

template <class S>
constexpr prospect_dtype c_dtype() {
  if constexpr (std::same_as<S, float>) return PROSPECT_F32;
  if constexpr (std::same_as<S, double>) return PROSPECT_F64;
  if constexpr (std::same_as<S, prospect::float16>) return PROSPECT_F16;
  if constexpr (std::same_as<S, prospect::bfloat16>) return PROSPECT_BF16;
  if constexpr (std::same_as<S, std::int32_t>) return PROSPECT_I32;
  if constexpr (std::same_as<S, std::int64_t>) return PROSPECT_I64;
  if constexpr (std::same_as<S, std::uint8_t>) return PROSPECT_U8;
}

/// A container's elements, every `stride`-th of them.
template <class Row>
prospect_row c_row(Row& row, std::int64_t stride = 1) {
  prospect_row r = prospect_row_of(row.data(), static_cast<std::int64_t>(row.size()) / stride,
                                   c_dtype<std::remove_cvref_t<decltype(row.data()[0])>>());
  r.stride = stride;
  return r;
}
template <class T>
prospect_row c_row(laid_out_row<T>& row) {
  prospect_row r = prospect_row_of(row.view().data(), row.view().size(), c_dtype<T>());
  r.stride = row.view().stride();
  return r;
}

template <class T>
prospect_matrix c_matrix(const prospect::matrix_view<T>& m) {
  prospect_matrix c =
      prospect_matrix_of(m.data, m.rows, m.columns, c_dtype<std::remove_const_t<T>>());
  c.pitch = m.pitch;
  return c;
}

/// A struct of zeros that knows its size.
template <class Struct>
Struct sized() {
  Struct s{};
  s.struct_size = sizeof s;
  return s;
}

inline prospect_loss c_loss(std::string_view name) {
  prospect_loss loss;
  REQUIRE(prospect_loss_init(&loss, std::string{name}.c_str(), nullptr) == PROSPECT_OK);
  return loss;
}

/// Metrics with room for as many as a loss has.
struct c_metrics {
  std::vector<prospect_metric> room;
  prospect_metrics metrics = sized<prospect_metrics>();

  explicit c_metrics(std::int32_t capacity = 16)
      : room(static_cast<std::size_t>(capacity), prospect_metric{"untouched", 42, 42}) {
    metrics.metric = room.data();
    metrics.capacity = capacity;
    metrics.total = 42;
  }
  prospect_metrics* operator&() { return &metrics; }
};

/// Whether a call that answered `status` was refused as it should be, with these words.
inline bool refused(prospect_status status, prospect_status expected, const prospect_error& error,
                    std::string_view words) {
  CAPTURE(status, expected, std::string{error.message}, std::string{words});
  const bool right =
      status == expected && std::string_view{error.message}.find(words) != std::string_view::npos;
  CHECK(right);
  return right;
}

}  // namespace testing
