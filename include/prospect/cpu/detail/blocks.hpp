// Rows, a block at a time: read into the type arithmetic is done in, worked on as whole vectors,
// and written back. Every row goes through the same instructions wherever it stands, and every sum
// adds in the order of the rows.
#pragma once

#include <prospect/core/strided_span.hpp>
#include <prospect/cpu/detail/several_math.hpp>
#include <prospect/executor.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v1::cpu::detail {

// The same for every instruction set, because a piece may be worked on by one that was chosen at
// run time and added up by code that was not.

/// Where rows lie in their batch.
struct range {
  std::int64_t first = 0, count = 0;
};

/// What a piece of a batch adds up to: N sums, and its rows that are not finite. Row i of a block
/// is added to lane i mod 8; the lanes are added up as a tree at the end.
template <int N>
struct tally {
  double lane[N][8] = {};
  std::int64_t nonfinite = 0;
  std::int64_t first_nonfinite = -1;

  double total(int which) const {
    const double* x = lane[which];
    return ((x[0] + x[4]) + (x[2] + x[6])) + ((x[1] + x[5]) + (x[3] + x[7]));
  }
  tally& operator+=(const tally& later) {
    for (int k = 0; k < N; ++k) {
      for (int i = 0; i < 8; ++i) lane[k][i] += later.lane[k][i];
    }
    nonfinite += later.nonfinite;
    if (first_nonfinite < 0) first_nonfinite = later.first_nonfinite;
    return *this;
  }
};

/// f(piece) for pieces of fixed size of n rows, added up in order. Fewer rows than are worth
/// threads are done before a thread that sleeps is awake.
template <class F, executor E>
auto in_pieces(std::int64_t n, E& on, const F& f) {
  constexpr std::int64_t size = 1 << 12;
  constexpr std::int64_t worth_threads = 1 << 14;
  if (n <= size) return f(range{0, n});
  std::vector<decltype(f(range{}))> parts(static_cast<std::size_t>((n + size - 1) / size));
  const auto work = [&](std::int64_t i) {
    parts[static_cast<std::size_t>(i)] = f(range{i * size, std::min(size, n - i * size)});
  };
  const auto pieces = static_cast<std::int64_t>(parts.size());
  if (n < worth_threads) {
    serial_executor::run(pieces, work);
  } else {
    on.run(pieces, work);
  }
  for (std::size_t i = 1; i < parts.size(); ++i) parts[0] += parts[i];
  return parts[0];
}

inline namespace PROSPECT_CPU_ISA {

/// Enough to make little of what a block costs beside its rows.
inline constexpr int block_size = 256;

/// The rows of a block with those that fill up its last vector.
inline int whole_vectors(range at) {
  constexpr int n = lanes<float>;
  return (static_cast<int>(at.count) + n - 1) / n * n;
}

/// One element for each row of a block.
template <class T>
struct block {
  alignas(64) T row[block_size];
};

template <class T, int n>
struct vector_of {
  // GCC ignores the attribute of a dependent alias.
  typedef T type __attribute__((vector_size(n * sizeof(T))));  // NOLINT(modernize-use-using)
};

/// n bytes as integers, which GCC 12 would widen one by one.
template <int n>
PROSPECT_INLINE auto widened_bytes(const std::uint8_t* from) {
  using bytes = typename vector_of<std::uint8_t, n>::type;
  using integers = typename vector_of<std::int32_t, n>::type;
#if PROSPECT_CPU_VECTOR_BYTES == 64
  if constexpr (n == 16) {
    return (integers)_mm512_maskz_cvtepu8_epi32(0xffff, load_vector<__m128i>(from));
  }
#endif
#if PROSPECT_CPU_VECTOR_BYTES > 16
  if constexpr (n == 8) {
    std::int64_t all;
    std::memcpy(&all, from, sizeof(all));
    return (integers)_mm256_cvtepu8_epi32(_mm_cvtsi64_si128(all));
  }
#endif
  return __builtin_convertvector(load_vector<bytes>(from), integers);
}

/// `lanes<R>` elements, as R.
template <std::floating_point R>
PROSPECT_INLINE several<R> load_several(const R* from) {
  return load_vector<numbers<R>>(from);
}
template <std::floating_point R>
PROSPECT_INLINE several<R> load_several(const std::int32_t* from) {
  using integers = typename vector_of<std::int32_t, lanes<R>>::type;
  return (numbers<R>)__builtin_convertvector(load_vector<integers>(from), numbers<R>);
}
template <std::floating_point R>
PROSPECT_INLINE several<R> load_several(const std::uint8_t* from) {
  return (numbers<R>)__builtin_convertvector(widened_bytes<lanes<R>>(from), numbers<R>);
}
template <std::floating_point R>
PROSPECT_INLINE void store_several(R* to, several<R> x) {
  store_vector(to, x.lane);
}

/// What the elements of a row are as arithmetic takes them.
template <class T>
struct element_of {
  using type = T;
};
template <storage T>
struct element_of<T> {
  using type = compute_t<T>;
};

/// 1 for a block of rows, and 0 for as many after it.
template <class T>
struct ones_before_zeros {
  alignas(64) T row[2 * block_size]{};

  constexpr ones_before_zeros() { std::fill_n(row, block_size, T(1)); }
};
template <class T>
inline constexpr ones_before_zeros<T> ones;

/// A row of a batch as its blocks are read: where it lies, if arithmetic takes its elements as they
/// are and they lie side by side; through a copy if not.
template <class T>
class row_reader {
 public:
  using element = typename element_of<T>::type;

  explicit row_reader(strided_span<const T> row) : row_{row} {}

  bool given() const { return !row_.empty(); }

  /// The rows `at`, 1 for each where none are given, and 0 in what is left of the last vector. Good
  /// until the next call.
  const element* read(range at) {
    if (!given()) return ones<element>.row + (block_size - at.count);
    const int n = whole_vectors(at);
    if constexpr (std::same_as<T, element>) {
      if (at.count == n && row_.stride() == 1) return row_.data() + at.first;
    }
    for (std::int64_t i = 0; i < at.count; ++i) copy_.row[i] = converted(row_[at.first + i]);
    std::fill(copy_.row + at.count, copy_.row + n, element{});
    return copy_.row;
  }

 private:
  static element converted(T x) {
    if constexpr (storage<T>) {
      return load(x);
    } else {
      return x;
    }
  }

  strided_span<const T> row_;
  block<element> copy_;
};

/// A row of results as its blocks are written: where it lies, or by way of a copy.
template <storage S>
class row_writer {
  using R = compute_t<S>;

 public:
  explicit row_writer(strided_span<S> row) : row_{row} {}

  /// Where the results of the rows `at` go, until `write` hands them out.
  R* begin(range at) {
    if constexpr (std::same_as<S, R>) {
      if (at.count == whole_vectors(at) && !row_.empty() && row_.stride() == 1) {
        return row_.data() + at.first;
      }
    }
    return copy_.row;
  }
  void write(range at) {
    if (row_.empty() || begin(at) != copy_.row) return;
    for (std::int64_t i = 0; i < at.count; ++i) row_[at.first + i] = store<S>(copy_.row[i]);
  }

 private:
  strided_span<S> row_;
  block<R> copy_;
};

/// x as it will be once it is stored as S.
template <storage S>
PROSPECT_INLINE several<compute_t<S>> as_stored(several<compute_t<S>> x) {
  if constexpr (!std::same_as<S, compute_t<S>>) {
    for (int k = 0; k < lanes<compute_t<S>>; ++k) x.lane[k] = load(store<S>(x.lane[k]));
  }
  return x;
}

/// x times a number of fp64, which fp32 may have no room for.
template <std::floating_point R>
class times {
 public:
  explicit times(double factor)
      : factor_{factor},
        fits_{std::same_as<R, double> || factor == 0 ||
              (std::abs(factor) > 0x1p-100 && std::abs(factor) < 0x1p100)},
        rounded_{fits_ ? static_cast<R>(factor) : R(0)} {}

  PROSPECT_INLINE several<R> operator()(several<R> x) const {
    if constexpr (std::same_as<R, float>) {
      if (!fits_) return in_double(x, [&](several<double> d) { return factor_ * d; });
    }
    return rounded_ * x;
  }

 private:
  double factor_;
  bool fits_;
  R rounded_;
};

/// Looks for what is no finite number among values.
template <std::floating_point R>
class finite_probe {
 public:
  template <class... Values>
  PROSPECT_INLINE void look_at(Values... values) {
    // 0 times a number is 0, and 0 times anything else is NaN.
    ((seen_ += R(0) * values), ...);
  }
  PROSPECT_INLINE bool finite() const {
    // Starting from +0, no sum is -0.
    std::uint64_t bits[sizeof(seen_) / 8];
    std::memcpy(bits, &seen_, sizeof(seen_));
    std::uint64_t any = 0;
    for (const std::uint64_t b : bits) any |= b;
    return any == 0;
  }

 private:
  several<R> seen_;
};

/// What a piece adds up to, while a block is added to it.
template <int N>
class running_tally {
 public:
  explicit running_tally(const tally<N>& before) {
    for (int k = 0; k < N; ++k) {
      for (int i = 0; i < parts; ++i) {
        part_[k][i] = load_vector<doubles>(before.lane[k] + i * lanes<double>);
      }
    }
  }
  /// x holds the rows from i on.
  PROSPECT_INLINE void add(int which, int i, several<double> x) {
    part_[which][i / lanes<double> % parts] += x;
  }
  PROSPECT_INLINE void add(int which, int i, several<float> x) { add(which, i, x, 1); }
  /// scale x, with the digits of fp64.
  PROSPECT_INLINE void add(int which, int i, several<double> x, double scale) {
    add(which, i, scale * x);
  }
  PROSPECT_INLINE void add(int which, int i, several<float> x, double scale) {
    const double_pair wide = widened(x.lane);
    add(which, i, scale * several<double>{wide.first});
    add(which, i + lanes<double>, scale * several<double>{wide.second});
  }
  void store_to(tally<N>& after) const {
    for (int k = 0; k < N; ++k) {
      for (int i = 0; i < parts; ++i) {
        store_vector(after.lane[k] + i * lanes<double>, part_[k][i].lane);
      }
    }
  }
  /// Whether a row that was added was no finite number, or more was added than there are numbers
  /// for.
  bool finite() const {
    finite_probe<double> probe;
    for (const auto& sum : part_) {
      for (const several<double> x : sum) probe.look_at(x);
    }
    return probe.finite();
  }

 private:
  static constexpr int parts = 8 / lanes<double>;
  several<double> part_[N][parts];
};

/// A row of token counts by name.
struct given_tokens {
  std::string_view name;
  strided_span<const std::int32_t> row;
};

/// How many rows have tokens on every side, and whether any count is negative.
struct token_tally {
  std::int64_t counted = 0;
  bool negative = false;

  void add(const std::int32_t* side, const std::int32_t* other, int n) {
    std::int32_t signs = 0;
    std::int32_t both = 0;
    for (int i = 0; i < n; ++i) {
      signs |= side[i] | other[i];
      both += (side[i] > 0 ? 1 : 0) & (other[i] > 0 ? 1 : 0);
    }
    counted += both;
    negative = negative || signs < 0;
  }
  token_tally& operator+=(const token_tally& later) {
    counted += later.counted;
    negative = negative || later.negative;
    return *this;
  }
};

/// f(block) for each block of the rows `all`.
template <class F>
void for_each_block(range all, const F& f) {
  for (std::int64_t done = 0; done < all.count; done += block_size) {
    const std::int64_t left = all.count - done;
    f(range{all.first + done, left < block_size ? left : block_size});
  }
}

}  // namespace PROSPECT_CPU_ISA
}  // namespace prospect::inline v1::cpu::detail
PROSPECT_STRICT_END
