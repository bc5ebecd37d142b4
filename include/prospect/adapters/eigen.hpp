// Eigen vectors and matrices as rows and logits. Borrows: the Eigen object must outlive the view.
#pragma once

#include <prospect/core/matrix_view.hpp>
#include <prospect/core/strided_span.hpp>

#include <Eigen/Core>

#include <concepts>
#include <type_traits>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::adapters {

/// Something of Eigen's that owns or maps memory and will still be there after the call: an lvalue,
/// or a Map, Block or Ref, which are views themselves. Expressions (a + b) have no memory to view.
/// Not `Eigen::Ref<const Vector>` as a parameter type: it silently copies what does not fit.
template <class X>
concept eigen_view =
    requires(X x) {
      x.data();
      x.innerStride();
    } && ((std::remove_cvref_t<X>::Flags & Eigen::DirectAccessBit) != 0) &&
    (std::is_lvalue_reference_v<X> ||
     !std::is_base_of_v<Eigen::PlainObjectBase<std::remove_cvref_t<X>>, std::remove_cvref_t<X>>);

template <class X>
using eigen_element = std::remove_reference_t<decltype(*std::declval<X&>().data())>;

/// A vector, or one row or column of a matrix, as a row.
template <class X>
  requires(eigen_view<X &&> && bool(std::remove_cvref_t<X>::IsVectorAtCompileTime))
strided_span<eigen_element<X>> row(X&& x) {
  return {x.data(), x.size(), x.innerStride()};
}

/// A row-major matrix [tokens, vocabulary] as logits; the outer stride becomes the pitch.
template <class X>
  requires(eigen_view<X &&> && bool(std::remove_cvref_t<X>::IsRowMajor) &&
           !bool(std::remove_cvref_t<X>::IsVectorAtCompileTime))
matrix_view<eigen_element<X>> matrix(X&& x) {
  static_assert(int(std::remove_cvref_t<X>::InnerStrideAtCompileTime) == 1,
                "prospect: elements of a logits row must lie side by side");
  // A single row has no pitch.
  return {x.data(), x.rows(), x.cols(), x.rows() > 1 ? x.outerStride() : x.cols()};
}

}  // namespace prospect::inline v2::adapters
PROSPECT_STRICT_END
