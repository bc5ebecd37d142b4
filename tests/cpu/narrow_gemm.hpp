// GEMMs that take operands in bf16 as they are, for tests of the head path: one type, whatever is
// behind it, so that the path is compiled once.
#pragma once

#include <prospect/cpu/gemm.hpp>
#ifdef PROSPECT_WITH_ONEDNN
#include <prospect/cpu/gemm_onednn.hpp>
#endif

#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

#include "catch.hpp"

namespace testing {

/// A matrix without gaps, as it is computed with.
template <class S>
std::vector<prospect::compute_t<S>> widened(const prospect::matrix_view<const S>& m) {
  std::vector<prospect::compute_t<S>> all;
  for (std::int64_t i = 0; i < m.rows; ++i) {
    for (std::int64_t j = 0; j < m.columns; ++j) all.push_back(prospect::load(m.row(i)[j]));
  }
  return all;
}

/// Says that it takes operands of 16 bits in `products`, and counts which it got.
class narrow_gemm {
 public:
  narrow_gemm(prospect::cpu::narrow_products products, bool by_onednn)
      : products_{products}, by_onednn_{by_onednn} {}
  narrow_gemm(const narrow_gemm& other) = delete;
  narrow_gemm& operator=(const narrow_gemm&) = delete;

  template <prospect::storage S>
  prospect::cpu::narrow_products narrow() const {
    return products_;
  }

  void operator()(prospect::cpu::gemm_operand<float> a, prospect::cpu::gemm_operand<float> b,
                  prospect::matrix_view<float> c, bool accumulate) const {
    ++wide;
    multiply(a, b, c, accumulate);
  }
  template <prospect::storage S>
    requires(sizeof(S) == 2)
  void operator()(prospect::cpu::gemm_operand<S> a, prospect::cpu::gemm_operand<S> b,
                  prospect::matrix_view<float> c, bool accumulate) const {
    ++narrowed;
    if constexpr (std::same_as<S, prospect::bfloat16>) {
      if (by_onednn_) return multiply(a, b, c, accumulate);
    }
    const auto wide_a = widened(a.matrix), wide_b = widened(b.matrix);
    multiply<float>({{wide_a.data(), a.matrix.rows, a.matrix.columns}, a.transposed},
                    {{wide_b.data(), b.matrix.rows, b.matrix.columns}, b.transposed}, c,
                    accumulate);
  }

  mutable std::atomic<std::int64_t> wide{0}, narrowed{0};

 private:
  template <class S>
  void multiply(const prospect::cpu::gemm_operand<S>& a, const prospect::cpu::gemm_operand<S>& b,
                const prospect::matrix_view<float>& c, bool accumulate) const {
#ifdef PROSPECT_WITH_ONEDNN
    if (by_onednn_) return prospect::cpu::onednn_gemm{}(a, b, c, accumulate);
#endif
    if constexpr (std::same_as<S, float>) prospect::cpu::eigen_gemm{}(a, b, c, accumulate);
  }

  prospect::cpu::narrow_products products_;
  bool by_onednn_;
};

/// Eigen's, and oneDNN's where it is found.
inline std::vector<bool> whose_gemms() {
#ifdef PROSPECT_WITH_ONEDNN
  return {false, true};
#else
  return {false};
#endif
}

}  // namespace testing
