// Matrices as oneDNN's products like them, written by us: its own way there takes as long as every
// twentieth product.
#pragma once

#include <prospect/cpu/detail/lanes.hpp>

#include <oneapi/dnnl/dnnl.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cpu::detail {
inline namespace PROSPECT_CPU_ISA {

/// A layout of blocks within blocks. A number's place is the sum of what its two indices give.
class onednn_layout {
 public:
  onednn_layout() = default;
  explicit onednn_layout(const dnnl::memory::desc& of) : bytes_{of.get_size()} {
#if DNNL_VERSION_MAJOR >= 3
    if (of.get_format_kind() != dnnl::memory::format_kind::blocked) return;
    const auto sizes = of.get_inner_blks(), dimensions = of.get_inner_idxs(),
               strides = of.get_strides();
    const int levels = of.get_inner_nblks();
    const dnnl::memory::dims dims = of.get_dims();
    is_whole_ = dims == of.get_padded_dims();
#else
    const dnnl_memory_desc_t& data = of.data;
    if (data.format_kind != dnnl_blocked || data.extra.flags != 0 || data.offset0 != 0) return;
    const auto& [strides, levels, sizes, dimensions] = data.format_desc.blocking;
    const dnnl::memory::dims dims = of.dims();
    is_whole_ = std::equal(dims.begin(), dims.end(), data.padded_dims);
#endif
    for (int d = 0; d < 2; ++d) {
      for (std::int64_t i = 0; i < dims[static_cast<std::size_t>(d)]; ++i) {
        std::int64_t left = i, place = 0, stride = 1;
        for (int level = levels - 1; level >= 0; --level) {
          const auto l = static_cast<std::size_t>(level);
          if (dimensions[l] == d) {
            place += left % sizes[l] * stride;
            left /= sizes[l];
          }
          stride *= sizes[l];
        }
        places_[static_cast<std::size_t>(d)].push_back(place + left * strides[d]);
      }
    }
  }

  /// Whether it is one of those.
  bool known() const { return !places_[0].empty() && !places_[1].empty(); }

  /// Writes the transpose of a row-major matrix into it.
  template <class T>
  void fill(const T* from, std::int64_t pitch, void* memory) const {
    if (!is_whole_) std::memset(memory, 0, bytes_);
    T* const to = static_cast<T*>(memory);
    const auto& [columns, rows] = places_;
    const auto count = static_cast<std::int64_t>(columns.size());
    const bool by_words = has_words<T>(columns);
    for (std::size_t i = 0; i < rows.size();) {
      const bool by_squares = by_words && has_column<T>(rows, i);
      const std::int64_t in_squares = by_squares ? count / side<T> * side<T> : 0;
      for (std::int64_t j = 0; j < in_squares; j += side<T>) {
        put_square(from + j, pitch, columns.data() + j, to + rows[i]);
      }
      for (int k = 0; k < (by_squares ? lanes<float> : 1); ++k, ++i, from += pitch) {
        for (std::int64_t j = in_squares; j < count; ++j) to[rows[i] + columns[j]] = from[j];
      }
    }
  }

 private:
  using places = std::vector<std::int64_t>;
  using word = std::uint32_t;

  template <class T>
  static constexpr std::int64_t in_word = sizeof(word) / sizeof(T);
  /// Of as many words as a vector has, in columns.
  template <class T>
  static constexpr std::int64_t side = in_word<T> * lanes<float>;

  /// Whether words of a row stay words.
  template <class T>
  static bool has_words(const places& columns) {
    constexpr auto n = static_cast<std::size_t>(in_word<T>);
    if (columns.size() % n != 0) return false;
    for (std::size_t j = 0; j < columns.size(); ++j) {
      if (columns[j] != columns[j / n * n] + static_cast<std::int64_t>(j % n)) return false;
    }
    return true;
  }
  /// Whether words below one another, in as many rows as a vector has words, become neighbours.
  template <class T>
  static bool has_column(const places& rows, std::size_t first) {
    if (first + lanes<float> > rows.size()) return false;
    for (int k = 1; k < lanes<float>; ++k) {
      if (rows[first + static_cast<std::size_t>(k)] != rows[first] + k * in_word<T>) return false;
    }
    return true;
  }

  template <class T>
  static void put_square(const T* from, std::int64_t pitch, const std::int64_t* columns, T* to) {
    constexpr int n = lanes<float>;
    words row[n];
    unrolled<n>([&](int i) __attribute__((always_inline)) {
      row[i] = load_vector<words>(from + i * pitch);
    });
    transpose<1>(row);
    unrolled<n>([&](int i) __attribute__((always_inline)) {
      store_vector(to + columns[i * in_word<T>], row[i]);
    });
  }
  /// Squares of twice the size each time: their upper right and lower left corners change places.
  template <int size>
  PROSPECT_INLINE static void transpose(words (&row)[lanes<float>]) {
    constexpr int n = lanes<float>;
    if constexpr (size < n) {
      unrolled<n>([&](int i) __attribute__((always_inline)) {
        if ((i & size) != 0) return;
        const words a = row[i], b = row[i + size];
        [&]<int... k>(std::integer_sequence<int, k...>) __attribute__((always_inline)) {
          row[i] = __builtin_shufflevector(a, b, ((k & size) != 0 ? n + k - size : k)...);
          row[i + size] = __builtin_shufflevector(a, b, ((k & size) != 0 ? n + k : k + size)...);
        }
        (std::make_integer_sequence<int, n>{});
      });
      transpose<2 * size>(row);
    }
  }

  std::size_t bytes_ = 0;
  bool is_whole_ = false;
  std::array<places, 2> places_;
};

}  // namespace PROSPECT_CPU_ISA
}  // namespace prospect::inline v2::cpu::detail
PROSPECT_STRICT_END
