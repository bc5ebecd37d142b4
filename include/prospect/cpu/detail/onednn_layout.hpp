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
    if (of.get_submemory_offset() != 0) return;
    const dnnl::memory::dims sizes = of.get_inner_blks();
    const dnnl::memory::dims dimensions = of.get_inner_idxs();
    const dnnl::memory::dims strides = of.get_strides();
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
        std::int64_t left = i;
        std::int64_t place = 0;
        std::int64_t stride = 1;
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

  /// Writes a row-major matrix into it, or its transpose.
  template <class T>
  void fill(const T* from, std::int64_t pitch, bool transposed, void* memory) const {
    if (!is_whole_) std::memset(memory, 0, bytes_);
    T* const to = static_cast<T*>(memory);
    const places& inner = places_[0];
    const places& outer = places_[1];
    const auto length = static_cast<std::int64_t>(inner.size());
    const auto vectors = has_words<T>(inner) ? in_vectors<T>(outer) : std::size_t{0};
    const auto put = [&](std::size_t i, std::size_t j) __attribute__((always_inline)) {
      const auto row = static_cast<std::int64_t>(transposed ? j : i);
      to[inner[i] + outer[j]] = from[row * pitch + static_cast<std::int64_t>(transposed ? i : j)];
    };
    for (std::size_t j = 0; j < vectors; j += lanes<float>) {
      const auto column = static_cast<std::int64_t>(j);
      const std::int64_t side = in_word<T> * lanes<float>;
      std::int64_t i = 0;
      if (transposed) {
        for (; i + side <= length; i += side) {
          put_square(from + column * pitch + i, pitch, inner.data() + i, to + outer[j]);
        }
      } else {
        for (; i < length; i += in_word<T>) {
          store_vector(to + inner[static_cast<std::size_t>(i)] + outer[j],
                       words_below(from + i * pitch + column, pitch));
        }
      }
      for (auto rest = static_cast<std::size_t>(i); rest < inner.size(); ++rest) {
        for (std::size_t k = j; k < j + lanes<float>; ++k) put(rest, k);
      }
    }
    for (std::size_t j = vectors; j < outer.size(); ++j) {
      for (std::size_t i = 0; i < inner.size(); ++i) put(i, j);
    }
  }

 private:
  using places = std::vector<std::int64_t>;
  using word = std::uint32_t;

  template <class T>
  static constexpr std::int64_t in_word = sizeof(word) / sizeof(T);

  /// Whether what is side by side in a word's length stays so.
  template <class T>
  static bool has_words(const places& inner) {
    constexpr auto n = static_cast<std::size_t>(in_word<T>);
    if (inner.size() % n != 0) return false;
    for (std::size_t i = 0; i < inner.size(); ++i) {
      if (inner[i] != inner[i / n * n] + static_cast<std::int64_t>(i % n)) return false;
    }
    return true;
  }
  /// From how many on, of the others, words are no longer side by side in a vector's length.
  template <class T>
  static std::size_t in_vectors(const places& outer) {
    constexpr std::size_t n = lanes<float>;
    for (std::size_t j = 0; j < outer.size() / n * n; ++j) {
      if (outer[j] != outer[j / n * n] + static_cast<std::int64_t>(j % n) * in_word<T>) {
        return j / n * n;
      }
    }
    return outer.size() / n * n;
  }

  /// Words of numbers that are below one another.
  template <class T>
  static words words_below(const T* from, std::int64_t pitch) {
    if constexpr (in_word<T> == 1) {
      static_cast<void>(pitch);
      return load_vector<words>(from);
    } else {
      using halves [[gnu::vector_size(sizeof(words) / 2)]] = std::uint16_t;
      return __builtin_convertvector(load_vector<halves>(from), words) |
             __builtin_convertvector(load_vector<halves>(from + pitch), words) << 16;
    }
  }

  template <class T>
  static void put_square(const T* from, std::int64_t pitch, const std::int64_t* inner, T* to) {
    constexpr int n = lanes<float>;
    words row[n];
    unrolled<n>([&](int i) __attribute__((always_inline)) {
      row[i] = load_vector<words>(from + i * pitch);
    });
    transpose<1>(row);
    unrolled<n>([&](int i) __attribute__((always_inline)) {
      store_vector(to + inner[i * in_word<T>], row[i]);
    });
  }
  /// Squares of twice the size each time: their upper right and lower left corners change places.
  template <int size>
  PROSPECT_INLINE static void transpose(words (&row)[lanes<float>]) {
    constexpr int n = lanes<float>;
    if constexpr (size < n) {
      unrolled<n>([&](int i) __attribute__((always_inline)) {
        if ((i & size) != 0) return;
        const words a = row[i];
        const words b = row[i + size];
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
