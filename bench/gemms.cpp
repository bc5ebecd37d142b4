#include "gemms.hpp"

#include <algorithm>

namespace bench {

namespace {

namespace cpu = prospect::cpu;
using prospect::bfloat16;

template <class Gemm, prospect::storage S>
void by(const cpu::gemm_operand<S>& a, const cpu::gemm_operand<S>& b, const matrix_view<float>& c,
        bool accumulate) {
  Gemm{}(a, b, c, accumulate);
}

#ifdef BENCH_WITH_BLAS
extern "C" void sgemm_(const char* transpose_a, const char* transpose_b, const int* m, const int* n,
                       const int* k, const float* alpha, const float* a, const int* lda,
                       const float* b, const int* ldb, const float* beta, float* c, const int* ldc);

struct blas_gemm {
  void operator()(const cpu::gemm_operand<float>& a, const cpu::gemm_operand<float>& b,
                  const matrix_view<float>& c, bool accumulate) const {
    // Row-major matrices are its transposed: c^T = b^T a^T.
    const auto whole = [](std::int64_t n) { return static_cast<int>(n); };
    const int m = whole(c.columns), n = whole(c.rows);
    const int k = whole(a.transposed ? a.matrix.rows : a.matrix.columns);
    const int lda = whole(b.matrix.pitch), ldb = whole(a.matrix.pitch), ldc = whole(c.pitch);
    const float one = 1, beta = accumulate ? 1.0F : 0.0F;
    sgemm_(b.transposed ? "T" : "N", a.transposed ? "T" : "N", &m, &n, &k, &one, b.matrix.data,
           &lda, a.matrix.data, &ldb, &beta, c.data, &ldc);
  }
};
#endif

std::vector<named_gemm> found_gemms() {
  std::vector<named_gemm> all{{.name = "eigen", .fp32 = by<cpu::eigen_gemm, float>}};
#ifdef BENCH_WITH_BLAS
  all.push_back({.name = "blas", .fp32 = by<blas_gemm, float>});
#endif
#ifdef BENCH_WITH_ONEDNN
  const bool narrow = cpu::onednn_gemm{}.narrow<bfloat16>() != cpu::narrow_products::none;
  all.push_back({.name = "onednn",
                 .fp32 = by<cpu::onednn_gemm, float>,
                 .bf16 = narrow ? by<cpu::onednn_gemm, bfloat16> : nullptr,
                 .is_onednn = true});
#endif
  return all;
}

}  // namespace

std::span<const named_gemm> gemms() {
  static const std::vector<named_gemm> all = found_gemms();
  return all;
}

template <prospect::storage S>
gemm_limit<S>::gemm_limit(head_sizes sizes, prospect::thread_pool& on)
    : sizes_{sizes},
      on_{on},
      part_{std::min<std::int64_t>(sizes.vocabulary, 8192)},
      hidden_{static_cast<std::size_t>(sizes.tokens * sizes.width)},
      weight_{static_cast<std::size_t>(part_ * sizes.width)},
      gradient_{static_cast<std::size_t>(sizes.tokens * part_)},
      logits_{gradient_.size()},
      d_hidden_{hidden_.size()},
      d_weight_{weight_.size()} {
  fill_normal(std::span{hidden_}, 1.0F, 1);
  fill_normal(std::span{weight_}, 1.0F, 2);
  fill_normal(std::span{gradient_}, 1.0F, 3);
  double best = 0;
  for (const named_gemm& gemm : gemms()) {
    if (!gemm.template has<S>()) continue;
    double fastest = 0;
    for (const product of :
         {product::logits, product::blocks_of_logits, product::d_hidden, product::d_weight}) {
      if (of == product::blocks_of_logits && !gemm.is_onednn) continue;
      for (const bool large : {true, false}) {
        const candidate c{&gemm, of, large};
        const double reached = median(std::vector{rate(c), rate(c), rate(c)});
        fastest = std::max(fastest, reached);
        if (reached <= best) continue;
        best = reached;
        best_ = c;
      }
    }
    found_.emplace_back(gemm.name, fastest);
  }
}

template <prospect::storage S>
double gemm_limit<S>::rate(const candidate& c) const {
  // What is divided: rows of the hidden gradient, or else the vocabulary.
  const std::int64_t whole = c.of == product::d_hidden ? sizes_.tokens : part_;
  const std::int64_t share = (whole + on_.threads() - 1) / on_.threads();
  const std::int64_t piece =
      c.large ? share : std::min(share, c.of == product::d_hidden ? whole / 4 : 1024);
  const std::int64_t pieces = (whole + piece - 1) / piece;
  const double seconds = seconds_of([&] {
    on_.run(pieces,
            [&](std::int64_t i) { multiply(c, i * piece, std::min(piece, whole - i * piece)); });
  });
  return sizes_.product() * static_cast<double>(part_) / static_cast<double>(sizes_.vocabulary) /
         seconds;
}

template <prospect::storage S>
void gemm_limit<S>::multiply(const candidate& c, std::int64_t first, std::int64_t size) const {
  using operand = cpu::gemm_operand<S>;
  const named_gemm& gemm = *c.gemm;
  const std::int64_t w = sizes_.width, tokens = sizes_.tokens;
  const matrix_view<const S> hidden{hidden_.data(), tokens, w};
  switch (c.of) {
    case product::logits:
      gemm(operand{hidden}, operand{{weight_.data() + first * w, size, w}, true},
           matrix_view<float>{logits_.data() + first, tokens, size, part_}, false);
      break;
    case product::blocks_of_logits:
#ifdef BENCH_WITH_ONEDNN
    {
      const std::int64_t rows = std::min(tokens, cpu::onednn_gemm{}.arranged_rows<S>());
      const auto times_weight =
          cpu::onednn_gemm{}.arrange(operand{{weight_.data() + first * w, size, w}, true});
      for (std::int64_t i = 0; i < tokens; i += rows) {
        const std::int64_t here = std::min(rows, tokens - i);
        times_weight(matrix_view<const S>{hidden.row(i), here, w},
                     matrix_view<float>{logits_.data() + first * tokens, here, size}, false);
      }
    }
#endif
    break;
    case product::d_hidden:
      gemm(operand{{gradient_.data() + first * part_, size, part_}},
           operand{{weight_.data(), part_, w}},
           matrix_view<float>{d_hidden_.data() + first * w, size, w}, false);
      break;
    case product::d_weight:
      gemm(operand{{gradient_.data() + first, tokens, size, part_}, true}, operand{hidden},
           matrix_view<float>{d_weight_.data() + first * w, size, w}, false);
      break;
  }
}

template class gemm_limit<float>;
template class gemm_limit<bfloat16>;

}  // namespace bench
