// The matrix product the head path is built on: Eigen's, or any BLAS through Eigen (define
// EIGEN_USE_BLAS and link one), oneDNN's (gemm_onednn.hpp), or whatever else is callable in the
// same way.
#pragma once

#include <prospect/core/dtype.hpp>
#include <prospect/core/isa.hpp>
#include <prospect/core/matrix_view.hpp>

#include <Eigen/Core>

#include <concepts>
#include <cstdint>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cpu {
inline namespace PROSPECT_CPU_ISA {

/// One side of a product: a row-major matrix, or its transpose.
template <storage S>
struct gemm_operand {
  matrix_view<const S> matrix;
  bool transposed = false;
};

/// `multiply(a, b, c, accumulate)` computes c = a b, or c += a b, in fp32 for operands of 16 bits.
/// It is called from several threads at once, on parts that do not overlap, and should work on the
/// calling thread alone: a BLAS that starts threads of its own is best told not to, or paired with
/// `serial_executor`.
///
/// A row of c must be the same bits whatever the other rows are and however many there are, if
/// log-probs are to be independent of batch and workspace.
template <class G, class S>
concept gemm =
    requires(const G& multiply, gemm_operand<S> a, gemm_operand<S> b, matrix_view<compute_t<S>> c,
             bool accumulate) { multiply(a, b, c, accumulate); };

/// A functor that arranges b once and then multiplies one block of rows after the other by it, so
/// that each can be used while it is near: `multiply.arrange(b)` returns what is called as (a, c,
/// accumulate), for blocks of any number of rows and best for `multiply.arranged_rows<S>()`; that
/// is more than anyone has where there is nothing to arrange. It serves on its thread until that
/// arranges another, whatever products are called between, and holds what memory it needs itself. A
/// row of c is the same bits in a block of any rows. The head path then makes logits in that way,
/// and sums over the vocabulary.
template <class G, class S>
concept arranging_gemm =
    gemm<G, S> && requires(const G& multiply, gemm_operand<S> b, matrix_view<const S> a,
                           matrix_view<compute_t<S>> c, bool accumulate) {
      { multiply.template arranged_rows<S>() } -> std::same_as<std::int64_t>;
      multiply.arrange(b)(a, c, accumulate);
    };

/// Which products of a head whose numbers have 16 bits take them as they are. In the others all
/// operands are widened first.
enum class narrow_products {
  none,
  of_logits,  ///< hidden states times weight: nothing is lost, products of 16 bits are exact
  all         ///< and gradients of logits, rounded to 16 bits, times weight and hidden states
};

/// A functor that is asked: one with a member template `narrow<S>()`. Of all others operands of 16
/// bits are widened, whatever they could be instantiated with.
///
/// Rounded gradients of logits are off by up to 2^-9 each, and sums of their products by as much of
/// |gradients| |factors|, normwise: below the 4e-3 that gradients in bf16 are held to, unless the
/// rows of the weight have so much in common that the hidden gradient, whose terms cancel, is much
/// smaller than that; `of_logits` is for those. Gradients in fp16 stay in fp32 even with `all`:
/// most of them would lie below what fp16 has digits for.
template <class G, class S>
concept narrow_gemm = !std::same_as<S, compute_t<S>> && requires(const G& multiply) {
  { multiply.template narrow<S>() } -> std::same_as<narrow_products>;
} && gemm<G, S>;

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
