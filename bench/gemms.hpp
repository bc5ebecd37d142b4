// The matrix products that the head path is timed with, one type for all of them: Eigen's, a BLAS's
// and oneDNN's, each where it is found; and how fast the best of them is.
#pragma once

#include "limits.hpp"
#include "logits.hpp"
#include "memory.hpp"

#include <prospect/cpu/gemm.hpp>
#ifdef BENCH_WITH_ONEDNN
#include <prospect/cpu/gemm_onednn.hpp>
#endif

#include <span>
#include <utility>
#include <vector>

namespace bench {

using prospect::matrix_view;

struct named_gemm {
  template <prospect::storage S>
  using operand = prospect::cpu::gemm_operand<S>;
  template <prospect::storage S>
  using function = void (*)(const operand<S>&, const operand<S>&, const matrix_view<float>&, bool);

  const char* name;
  function<float> fp32;
  function<prospect::bfloat16> bf16 = nullptr;  ///< where it has one that is fast here
  bool is_onednn = false;

  template <prospect::storage S>
  prospect::cpu::narrow_products narrow() const {
    const bool has = std::same_as<S, prospect::bfloat16> && bf16 != nullptr;
    return has ? prospect::cpu::narrow_products::all : prospect::cpu::narrow_products::none;
  }
  void operator()(const operand<float>& a, const operand<float>& b, const matrix_view<float>& c,
                  bool accumulate) const {
    fp32(a, b, c, accumulate);
  }
  void operator()(const operand<prospect::bfloat16>& a, const operand<prospect::bfloat16>& b,
                  const matrix_view<float>& c, bool accumulate) const {
    bf16(a, b, c, accumulate);
  }

  template <prospect::storage S>
  bool has() const {
    return std::same_as<S, float> || bf16 != nullptr;
  }
};

/// run(gemm): a type of its own for one that arranges, as which the head path is compiled again.
template <class Run>
double with_gemm(const named_gemm& gemm, const Run& run) {
#ifdef BENCH_WITH_ONEDNN
  if (gemm.is_onednn) return run(prospect::cpu::onednn_gemm{});
#endif
  return run(gemm);
}

/// Those that are found, Eigen's first.
std::span<const named_gemm> gemms();

/// tokens x hidden size x vocabulary.
struct head_sizes {
  std::int64_t tokens, width, vocabulary;

  /// Multiplications and additions of one product.
  double product() const {
    return 2 * static_cast<double>(tokens) * static_cast<double>(width) *
           static_cast<double>(vocabulary);
  }
};

/// The rate of the fastest GEMM here that multiplies S, by itself: the three products of a step
/// over a part of the vocabulary, each divided among the threads in large or in small pieces, and
/// logits by blocks of rows where it arranges.
template <prospect::storage S>
class gemm_limit {
 public:
  gemm_limit(head_sizes sizes, prospect::thread_pool& on);

  /// Multiplications and additions per second, now.
  double rate() const { return rate(best_); }
  /// The most that each reached when they were compared.
  std::span<const std::pair<const char*, double>> found() const { return found_; }

 private:
  enum class product { logits, blocks_of_logits, d_hidden, d_weight };
  struct candidate {
    const named_gemm* gemm = nullptr;
    product of = product::logits;
    bool large = false;
  };

  double rate(const candidate& c) const;
  void multiply(const candidate& c, std::int64_t first, std::int64_t size) const;

  head_sizes sizes_;
  prospect::thread_pool& on_;
  std::int64_t part_;
  array<S> hidden_, weight_, gradient_;
  array<float> logits_, d_hidden_, d_weight_;
  candidate best_;
  std::vector<std::pair<const char*, double>> found_;
};

}  // namespace bench
