// Any mdspan as rows and logits: std (C++23), Kokkos and cuda::std alike. They are recognised by
// their shape, so this header includes none of them.
#pragma once

#include <prospect/core/error.hpp>
#include <prospect/core/matrix_view.hpp>
#include <prospect/core/strided_span.hpp>

#include <concepts>
#include <cstddef>
#include <cstdint>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::adapters {

template <class M, std::size_t Rank>
concept strided_mdspan = (M::rank() == Rank) && requires(const M& m) {
  typename M::element_type;
  { m.data_handle() } -> std::convertible_to<typename M::element_type*>;
  { m.extent(0) } -> std::convertible_to<std::int64_t>;
  { m.stride(0) } -> std::convertible_to<std::int64_t>;
};

/// A one-dimensional mdspan of any layout with strides.
template <strided_mdspan<1> M>
constexpr strided_span<typename M::element_type> row(const M& m) {
  return {m.data_handle(), static_cast<std::int64_t>(m.extent(0)),
          static_cast<std::int64_t>(m.stride(0))};
}

/// A two-dimensional mdspan [tokens, vocabulary].
/// @throws std::invalid_argument unless the elements of a row lie side by side.
template <strided_mdspan<2> M>
constexpr matrix_view<typename M::element_type> matrix(const M& m) {
  const auto rows = static_cast<std::int64_t>(m.extent(0));
  const auto columns = static_cast<std::int64_t>(m.extent(1));
  if (m.stride(1) != 1 && rows > 0 && columns > 1) {
    prospect::detail::refuse("prospect: elements of a logits row must lie side by side");
  }
  // A single row has no pitch.
  return {m.data_handle(), rows, columns,
          rows > 1 ? static_cast<std::int64_t>(m.stride(0)) : columns};
}

}  // namespace prospect::inline v2::adapters
PROSPECT_STRICT_END
