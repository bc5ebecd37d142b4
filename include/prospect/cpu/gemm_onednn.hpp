// oneDNN's matrix product for the head path: fp32, and operands in bf16 as they are stored where
// the processor has instructions for them (AMX, AVX512-BF16, or what oneDNN knows elsewhere).
// Whoever includes this links prospect::onednn; without CMake, libdnnl and, where that is built
// with OpenMP, OpenMP's library.
#pragma once

#include <prospect/cpu/gemm.hpp>

#include <oneapi/dnnl/dnnl.hpp>
#if DNNL_CPU_RUNTIME == DNNL_RUNTIME_OMP
#if __has_include(<omp.h>)
#include <omp.h>
#else  // clang without a library of its own finds GCC's, but not its header
extern "C" {
int omp_get_max_threads();
void omp_set_num_threads(int);
}
#endif
#endif

#include <algorithm>
#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <utility>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cpu {

namespace detail {
inline namespace PROSPECT_CPU_ISA {

/// As long as it lives, what the thread starts with OpenMP runs on that thread alone.
class one_thread {
 public:
#if DNNL_CPU_RUNTIME == DNNL_RUNTIME_OMP
  one_thread() : before_{omp_get_max_threads()} { omp_set_num_threads(1); }
  ~one_thread() { omp_set_num_threads(before_); }
#else
  one_thread() = default;
#endif
  one_thread(const one_thread&) = delete;
  one_thread& operator=(const one_thread&) = delete;

 private:
  [[maybe_unused]] int before_ = 0;
};

/// A row-major matrix, or its transpose, as oneDNN is told of it.
struct onednn_matrix {
  dnnl::memory::data_type type;
  std::int64_t rows, columns, pitch;
  bool transposed;

  bool operator==(const onednn_matrix&) const = default;

  dnnl::memory::desc description() const {
    using sizes = dnnl::memory::dims;
    return transposed ? dnnl::memory::desc{{columns, rows}, type, sizes{1, pitch}}
                      : dnnl::memory::desc{{rows, columns}, type, sizes{pitch, 1}};
  }
};

/// A product of such sizes.
struct onednn_shape {
  onednn_matrix a, b, c;
  bool accumulate;

  bool operator==(const onednn_shape&) const = default;

  dnnl::matmul::primitive_desc description(const dnnl::engine& engine) const {
    dnnl::primitive_attr attributes;
    attributes.set_fpmath_mode(dnnl::fpmath_mode::strict);  // whatever the environment says
    if (accumulate) {
      dnnl::post_ops after;
      after.append_sum(1);
      attributes.set_post_ops(after);
    }
#if DNNL_VERSION_MAJOR >= 3
    return {engine, a.description(), b.description(), c.description(), attributes};
#else
    return {dnnl::matmul::desc{a.description(), b.description(), c.description()}, attributes,
            engine};
#endif
  }
};

/// A thread's products. Making one takes longer than a small product itself, so those of the last
/// shapes are kept: a step of a head with an adapter has some thirty.
class onednn_products {
 public:
  static onednn_products& of_this_thread() {
    static thread_local onednn_products products;
    return products;
  }

  void run(const onednn_shape& shape, const void* a, const void* b, void* c) {
    known* k = find(shape);
    if (k == nullptr) {
      known made{shape, dnnl::matmul{shape.description(engine_)}};
      k = &known_[next_];
      next_ = (next_ + 1) % known_.size();
      *k = std::move(made);
    }
    const auto memory = [&](const onednn_matrix& m, void* data) {
      return dnnl::memory{m.description(), engine_, data};
    };
    // oneDNN has no word for what is only read.
    k->product.execute(stream_, {{DNNL_ARG_SRC, memory(shape.a, const_cast<void*>(a))},
                                 {DNNL_ARG_WEIGHTS, memory(shape.b, const_cast<void*>(b))},
                                 {DNNL_ARG_DST, memory(shape.c, c)}});
    stream_.wait();
  }

  const dnnl::engine& engine() const { return engine_; }

 private:
  struct known {
    onednn_shape shape{};
    dnnl::matmul product;
  };
  known* find(const onednn_shape& shape) {
    for (known& k : known_) {
      if (k.product && k.shape == shape) return &k;
    }
    return nullptr;
  }

  dnnl::engine engine_{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream_{engine_};
  std::array<known, 48> known_{};
  std::size_t next_ = 0;
};

/// Whether operands in bf16 are faster than the same in fp32: where the processor has instructions
/// for them, and oneDNN a kernel that uses them.
inline bool onednn_is_fast_in_bfloat16() {
  static const bool is_fast = [] {
#if defined(__x86_64__)
    constexpr unsigned needed = dnnl_cpu_isa_avx512_core_bf16;
    if ((static_cast<unsigned>(dnnl_get_effective_cpu_isa()) & needed) != needed) return false;
#endif
    try {
      const auto matrix = [](dnnl::memory::data_type type) {
        return onednn_matrix{type, 64, 64, 64, false};
      };
      using type = dnnl::memory::data_type;
      const onednn_shape shape{matrix(type::bf16), matrix(type::bf16), matrix(type::f32), false};
      const auto found = shape.description(onednn_products::of_this_thread().engine());
      return !std::string_view{found.impl_info_str()}.starts_with("ref");
    } catch (const dnnl::error&) {
      return false;
    }
  }();
  return is_fast;
}

}  // namespace PROSPECT_CPU_ISA
}  // namespace detail

inline namespace PROSPECT_CPU_ISA {

/// One thread a call, whatever OpenMP's settings are, which stay as they were. Throws dnnl::error
/// where oneDNN does. Products of doubles are Eigen's. (A oneDNN on TBB's threads starts those.)
class onednn_gemm {
 public:
  constexpr onednn_gemm() = default;
  /// `narrow`: which products take operands in bf16 as they are, where that is faster.
  explicit constexpr onednn_gemm(narrow_products narrow) : narrow_{narrow} {}

  template <storage S>
  narrow_products narrow() const {
    const bool is_fast = std::same_as<S, bfloat16> && detail::onednn_is_fast_in_bfloat16();
    return is_fast ? narrow_ : narrow_products::none;
  }

  template <storage S>
    requires std::same_as<S, float> || std::same_as<S, bfloat16>
  void operator()(gemm_operand<S> a, gemm_operand<S> b, matrix_view<float> c,
                  bool accumulate) const {
    using type = dnnl::memory::data_type;
    constexpr type of_operands = std::same_as<S, bfloat16> ? type::bf16 : type::f32;
    const auto operand = [](const gemm_operand<S>& o) {
      return detail::onednn_matrix{of_operands, o.matrix.rows, o.matrix.columns, o.matrix.pitch,
                                   o.transposed};
    };
    const detail::onednn_shape shape{
        operand(a), operand(b), {type::f32, c.rows, c.columns, c.pitch, false}, accumulate};
    if ((a.transposed ? a.matrix.rows : a.matrix.columns) == 0) return clear(c, accumulate);
    const detail::one_thread alone;
    detail::onednn_products::of_this_thread().run(shape, a.matrix.data, b.matrix.data, c.data);
  }
  void operator()(gemm_operand<double> a, gemm_operand<double> b, matrix_view<double> c,
                  bool accumulate) const {
    eigen_gemm{}(a, b, c, accumulate);
  }

 private:
  /// Sums of nothing, which oneDNN does not know.
  static void clear(const matrix_view<float>& c, bool accumulate) {
    if (accumulate) return;
    for (std::int64_t i = 0; i < c.rows; ++i) std::fill_n(c.row(i), c.columns, 0.0F);
  }

  narrow_products narrow_ = narrow_products::all;
};

static_assert(gemm<onednn_gemm, float> && gemm<onednn_gemm, double>);
static_assert(narrow_gemm<onednn_gemm, bfloat16> && !narrow_gemm<onednn_gemm, float>);

}  // namespace PROSPECT_CPU_ISA
}  // namespace prospect::inline v2::cpu
PROSPECT_STRICT_END
