// The matrix product the head path is built on: Eigen's, or any BLAS through Eigen (define
// EIGEN_USE_BLAS and link one), or whatever else is callable in the same way.
#pragma once

#include <prospect/core/isa.hpp>
#include <prospect/core/matrix_view.hpp>

#include <Eigen/Core>

#include <concepts>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cpu {
inline namespace PROSPECT_CPU_ISA {

/// One side of a product: a row-major matrix, or its transpose.
template <std::floating_point R>
struct gemm_operand {
  matrix_view<const R> matrix;
  bool transposed = false;
};

/// `multiply(a, b, c, accumulate)` computes c = a b, or c += a b. It is called from several threads
/// at once, on parts that do not overlap, and should work on the calling thread alone: a BLAS that
/// starts threads of its own is best told not to, or paired with `serial_executor`.
template <class G, class R>
concept gemm = requires(const G& multiply, gemm_operand<R> a, gemm_operand<R> b, matrix_view<R> c,
                        bool accumulate) { multiply(a, b, c, accumulate); };

/// Where Eigen is compiled with OpenMP, define EIGEN_DONT_PARALLELIZE: the threads are ours
/// already.
struct eigen_gemm {
  template <std::floating_point R>
  void operator()(gemm_operand<R> a, gemm_operand<R> b, matrix_view<R> c, bool accumulate) const {
    using row_major = Eigen::Matrix<R, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
    using stride = Eigen::OuterStride<>;
    const auto view = [](const matrix_view<const R>& m) {
      return Eigen::Map<const row_major, 0, stride>(m.data, m.rows, m.columns, stride(m.pitch));
    };
    Eigen::Map<row_major, 0, stride> out(c.data, c.rows, c.columns, stride(c.pitch));
    const auto x = view(a.matrix);
    const auto y = view(b.matrix);
    const auto put = [&](const auto& product) {
      if (accumulate) {
        out.noalias() += product;
      } else {
        out.noalias() = product;
      }
    };
    if (a.transposed) {
      b.transposed ? put(x.transpose() * y.transpose()) : put(x.transpose() * y);
    } else {
      b.transposed ? put(x * y.transpose()) : put(x * y);
    }
  }
};

static_assert(gemm<eigen_gemm, float> && gemm<eigen_gemm, double>);

}  // namespace PROSPECT_CPU_ISA
}  // namespace prospect::inline v2::cpu
PROSPECT_STRICT_END
