// oneDNN's matrix product for the head path: fp32, and operands in bf16 as they are stored where
// the processor has instructions for them (AMX, AVX512-BF16, or what oneDNN knows elsewhere).
// Whoever includes this links prospect::onednn; without CMake, libdnnl and, where that is built
// with OpenMP, OpenMP's library.
#pragma once

#include <prospect/cpu/detail/onednn_layout.hpp>
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
#include <limits>
#include <string_view>
#include <utility>
#include <vector>

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

  using dims = dnnl::memory::dims;
  dims sizes() const { return transposed ? dims{columns, rows} : dims{rows, columns}; }
  dnnl::memory::desc description() const {
    return {sizes(), type, transposed ? dims{1, pitch} : dims{pitch, 1}};
  }
};

/// A product of such sizes.
struct onednn_shape {
  onednn_matrix a, b, c;
  bool accumulate;
  std::int64_t arranged_for = 0;  ///< b is as products with so many rows like it best, or as said

  bool operator==(const onednn_shape&) const = default;

  /// How b lies.
  dnnl::memory::desc description_of_b(const dnnl::engine& engine) const {
    if (arranged_for == 0) return b.description();
    onednn_shape first = *this;
    first.a.rows = first.c.rows = arranged_for;
    first.accumulate = false;
    const dnnl::memory::desc any{b.sizes(), b.type, dnnl::memory::format_tag::any};
    return first.description(engine, any).weights_desc();
  }

  dnnl::matmul::primitive_desc description(const dnnl::engine& engine) const {
    return description(engine, description_of_b(engine));
  }

 private:
  dnnl::matmul::primitive_desc description(const dnnl::engine& engine,
                                           const dnnl::memory::desc& of_b) const {
    dnnl::primitive_attr attributes;
    attributes.set_fpmath_mode(dnnl::fpmath_mode::strict);  // whatever the environment says
    if (accumulate) {
      dnnl::post_ops after;
      after.append_sum(1);
      attributes.set_post_ops(after);
    }
#if DNNL_VERSION_MAJOR >= 3
    const auto make = [&]() -> dnnl::matmul::primitive_desc {
      return {engine, a.description(), of_b, c.description(), attributes};
    };
#else
    // A list of kernels refers to it.
    const dnnl::matmul::desc product{a.description(), of_b, c.description()};
    const auto make = [&]() -> dnnl::matmul::primitive_desc {
      return {product, attributes, engine};
    };
#endif
    dnnl::matmul::primitive_desc first = make();
    const auto name = [](const dnnl::matmul::primitive_desc& kernel) {
      return std::string_view{kernel.impl_info_str()};
    };
    // With a transposed a, the next in the list is faster: on Zen 4 by 4 to 8 %. (Of AMX's kernels
    // that is not known.)
    const bool may_change = a.transposed && name(first).starts_with("brg") &&
                            name(first).find("avx512_core") != std::string_view::npos &&
                            name(first).find("amx") == std::string_view::npos;
    if (!may_change) return first;
    dnnl::matmul::primitive_desc next = make();
    return next.next_impl() && name(next).starts_with("gemm:") ? next : first;
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
    const known& k = find(shape);
    k.product.execute(stream_, {{DNNL_ARG_SRC, memory(shape.a.description(), a)},
                                {DNNL_ARG_WEIGHTS, memory(k.b, b)},
                                {DNNL_ARG_DST, memory(shape.c.description(), c)}});
    stream_.wait();
  }
  /// Arranges b as the shape says, for `run_arranged`.
  template <class T>
  void arrange(const onednn_shape& shape, const T* b) {
    const known& k = find(shape);
    void* const to = arranged_.of(k.b.get_size());
    if (k.layout.known()) return k.layout.fill(b, shape.b.pitch, shape.b.transposed, to);
    dnnl::memory from = memory(shape.b.description(), b);
    dnnl::memory arranged = memory(k.b, to);
    dnnl::reorder{from, arranged}.execute(stream_, from, arranged);
    stream_.wait();
  }
  /// By what was arranged last. Rows of a and c may have gaps between them, the shape's have none:
  /// oneDNN's best products are of such.
  template <class T>
  void run_arranged(const onednn_shape& shape, const matrix_view<const T>& a,
                    const matrix_view<float>& c) {
    matrix_view<const T> from = a;
    if (a.pitch != a.columns) {
      const matrix_view<T> rows = a_.of<T>(a.rows, a.columns);
      copy_rows<T>(a, rows);
      from = rows;
    }
    if (c.pitch == c.columns) return run(shape, from.data, arranged_.data(), c.data);
    const matrix_view<float> to = c_.of<float>(c.rows, c.columns);
    if (shape.accumulate) copy_rows<float>(c, to);
    run(shape, from.data, arranged_.data(), to.data);
    copy_rows<float>(to, c);
  }

  const dnnl::engine& engine() const { return engine_; }

 private:
  struct known {
    onednn_shape shape{};
    dnnl::matmul product;
    dnnl::memory::desc b;
    onednn_layout layout;  ///< of one that is arranged
  };
  /// Memory that grows and stays.
  class scratch {
   public:
    void* of(std::size_t bytes) {
      const std::size_t needed = bytes / sizeof(line) + 1;
      if (lines_.size() < needed) {
        lines_ = {};  // before the larger one is there
        lines_.resize(needed);
      }
      return data();
    }
    template <class T>
    matrix_view<T> of(std::int64_t rows, std::int64_t columns) {
      return {static_cast<T*>(of(static_cast<std::size_t>(rows * columns) * sizeof(T))), rows,
              columns};
    }
    void* data() { return lines_.data(); }

   private:
    struct alignas(64) line {
      std::byte bytes[64];
    };
    std::vector<line> lines_;
  };
  template <class T>
  static void copy_rows(const matrix_view<const T>& from, const matrix_view<T>& to) {
    for (std::int64_t i = 0; i < from.rows; ++i) std::copy_n(from.row(i), from.columns, to.row(i));
  }
  const known& find(const onednn_shape& shape) {
    for (const known& k : known_) {
      if (k.product && k.shape == shape) return k;
    }
    const auto description = shape.description(engine_);
    known made{shape, dnnl::matmul{description}, description.weights_desc(), {}};
    if (shape.arranged_for != 0) made.layout = onednn_layout{made.b};
    known& k = known_[next_];
    next_ = (next_ + 1) % known_.size();
    k = std::move(made);
    return k;
  }
  dnnl::memory memory(const dnnl::memory::desc& description, const void* data) const {
    // oneDNN has no word for what is only read.
    return {description, engine_, const_cast<void*>(data)};
  }

  dnnl::engine engine_{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream_{engine_};
  std::array<known, 48> known_{};
  std::size_t next_ = 0;
  scratch arranged_, a_, c_;
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

/// Whether products with so many rows are faster by a b that is arranged: where oneDNN has its
/// batched kernels.
inline bool onednn_arranges(dnnl::memory::data_type of_operands, std::int64_t rows) {
  try {
    const onednn_matrix a{of_operands, rows, 64, 64, false};
    const onednn_matrix b{of_operands, 64, 128, 128, false};
    const onednn_shape shape{
        a, b, {dnnl::memory::data_type::f32, rows, 128, 128, false}, false, rows};
    const auto found = shape.description(onednn_products::of_this_thread().engine());
    return std::string_view{found.impl_info_str()}.starts_with("brg");
  } catch (const dnnl::error&) {
    return false;
  }
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
    if ((a.transposed ? a.matrix.rows : a.matrix.columns) == 0) return clear(c, accumulate);
    const detail::one_thread alone;
    detail::onednn_products::of_this_thread().run(shape(a, b, c, accumulate), a.matrix.data,
                                                  b.matrix.data, c.data);
  }
  /// As in gemm.hpp.
  template <storage S>
    requires std::same_as<S, float> || std::same_as<S, bfloat16>
  std::int64_t arranged_rows() const {
    static const bool worth_it = detail::onednn_arranges(type_of<S>, best_rows);
    return worth_it ? best_rows : (std::numeric_limits<std::int64_t>::max)();
  }
  /// The same: a thread keeps b, and blocks of a and c that have gaps between their rows.
  template <storage S>
    requires std::same_as<S, float> || std::same_as<S, bfloat16>
  auto arrange(gemm_operand<S> b) const {
    const std::int64_t inner = b.transposed ? b.matrix.columns : b.matrix.rows;
    const std::int64_t columns = b.transposed ? b.matrix.rows : b.matrix.columns;
    const bool arranges = inner > 0 && arranged_rows<S>() == best_rows;
    const auto product = [=](std::int64_t rows, bool accumulate) {
      detail::onednn_shape of =
          shape<S>({{nullptr, rows, inner}}, b, {nullptr, rows, columns}, accumulate);
      of.arranged_for = best_rows;
      return of;
    };
    if (arranges) {
      const detail::one_thread alone;
      detail::onednn_products::of_this_thread().arrange(product(best_rows, false), b.matrix.data);
    }
    return [=, *this](matrix_view<const S> a, matrix_view<float> c, bool accumulate) {
      if (!arranges) return (*this)(gemm_operand<S>{a}, b, c, accumulate);
      const detail::one_thread alone;
      detail::onednn_products::of_this_thread().run_arranged(product(a.rows, accumulate), a, c);
    };
  }

  void operator()(gemm_operand<double> a, gemm_operand<double> b, matrix_view<double> c,
                  bool accumulate) const {
    eigen_gemm{}(a, b, c, accumulate);
  }

 private:
  template <storage S>
  static constexpr dnnl::memory::data_type type_of =
      std::same_as<S, bfloat16> ? dnnl::memory::data_type::bf16 : dnnl::memory::data_type::f32;
  /// Few enough for their products with a tile of the head to stay near.
  static constexpr std::int64_t best_rows = 192;

  template <storage S>
  static detail::onednn_shape shape(const gemm_operand<S>& a, const gemm_operand<S>& b,
                                    const matrix_view<float>& c, bool accumulate) {
    const auto operand = [](const gemm_operand<S>& o) {
      return detail::onednn_matrix{type_of<S>, o.matrix.rows, o.matrix.columns, o.matrix.pitch,
                                   o.transposed};
    };
    return {
        operand(a), operand(b), {type_of<float>, c.rows, c.columns, c.pitch, false}, accumulate};
  }
  /// Sums of nothing, which oneDNN does not know.
  static void clear(const matrix_view<float>& c, bool accumulate) {
    if (accumulate) return;
    for (std::int64_t i = 0; i < c.rows; ++i) std::fill_n(c.row(i), c.columns, 0.0F);
  }

  narrow_products narrow_ = narrow_products::all;
};

static_assert(gemm<onednn_gemm, float> && gemm<onednn_gemm, double>);
static_assert(arranging_gemm<onednn_gemm, float> && arranging_gemm<onednn_gemm, bfloat16>);
static_assert(narrow_gemm<onednn_gemm, bfloat16> && !narrow_gemm<onednn_gemm, float>);

}  // namespace PROSPECT_CPU_ISA
}  // namespace prospect::inline v2::cpu
PROSPECT_STRICT_END
