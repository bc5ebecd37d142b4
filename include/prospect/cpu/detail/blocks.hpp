// A batch in pieces and blocks: divided by its size alone, worked on as whole vectors, added up in
// the order of the rows. Every row goes through the same instructions wherever it stands.
#pragma once

#include <prospect/cpu/detail/several_math.hpp>
#include <prospect/executor.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>
#include <type_traits>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cpu::detail {

// The same for every instruction set, because a piece may be worked on by one that was chosen at
// run time and added up by code that was not.

/// Where rows lie in their batch.
struct range {
  std::int64_t first, count;
};

/// What a piece of a batch adds up to: N sums, and its rows that are not finite. Row i of a block
/// is added to lane i mod 8; the lanes are added up as a tree at the end.
template <int N>
struct tally {
  double lane[N][8] = {};
  std::int64_t nonfinite = 0;
  std::int64_t first_nonfinite = -1;

  PROSPECT_INLINE double total(int which) const {
    const double* x = lane[which];
    return ((x[0] + x[4]) + (x[2] + x[6])) + ((x[1] + x[5]) + (x[3] + x[7]));
  }
  PROSPECT_INLINE tally& operator+=(const tally& later) {
    for (int k = 0; k < N; ++k) {
      for (int i = 0; i < 8; ++i) lane[k][i] += later.lane[k][i];
    }
    nonfinite += later.nonfinite;
    if (first_nonfinite < 0) first_nonfinite = later.first_nonfinite;
    return *this;
  }
};

inline namespace PROSPECT_CPU_ISA {

/// How n rows are divided, by their number alone: pieces of so many rows that there are at most
/// `most`. Fewer rows than are worth threads are done before a thread that sleeps is awake.
struct pieces_of {
  static constexpr std::int64_t most = 128;
  static constexpr std::int64_t least_rows = 1 << 12;
  static constexpr std::int64_t worth_threads = 1 << 14;

  std::int64_t rows;
  std::int64_t size = (rows / (least_rows * most) + 1) * least_rows;
  std::int64_t count = (rows + size - 1) / size;
  bool alone = rows < worth_threads;

  range piece(std::int64_t i) const {
    const std::int64_t left = rows - i * size;
    return {i * size, left < size ? left : size};
  }
  template <executor E, class Work>
  void run(E& on, const Work& work) const {
    if (alone) {
      serial_executor::run(count, work);
    } else {
      on.run(count, work);
    }
  }
};

/// Room for what pieces add up to, of which only what is used is ever touched.
template <class Tally>
class piece_sums {
  static_assert(std::is_trivially_copyable_v<Tally> && std::is_trivially_destructible_v<Tally>);

 public:
  void set(std::int64_t i, const Tally& sums) {
    ::new (static_cast<void*>(room_ + i * step)) Tally{sums};
  }
  const Tally& operator[](std::int64_t i) const {
    return *std::launder(reinterpret_cast<const Tally*>(room_ + i * step));
  }

 private:
  static constexpr std::int64_t step{sizeof(Tally)};
  alignas(Tally) std::byte room_[pieces_of::most * sizeof(Tally)];
};

/// What f(piece) gives for all pieces, added up in order.
template <class F, executor E>
auto in_pieces(const pieces_of& pieces, E& on, const F& f) {
  using tally_type = decltype(f(range{}));
  if (pieces.count < 2) return f(range{0, pieces.rows});
  piece_sums<tally_type> parts;
  pieces.run(on, [&](std::int64_t i) { parts.set(i, f(pieces.piece(i))); });
  tally_type all = parts[0];
  for (std::int64_t i = 1; i < pieces.count; ++i) all += parts[i];
  return all;
}

/// The same for n rows.
template <class F, executor E>
auto in_pieces(std::int64_t n, E& on, const F& f) {
  return in_pieces(pieces_of{.rows = n}, on, f);
}

/// Enough to make little of what a block costs beside its rows.
inline constexpr int block_size = 512;

/// The rows of a block with those that fill up its last vector.
inline int whole_vectors(range at) {
  constexpr int n = lanes<float>;
  return (static_cast<int>(at.count) + n - 1) / n * n;
}

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
      if (!fits_) [[unlikely]]
        return in_double(x, [&](several<double> d) { return factor_ * d; });
    }
    return rounded_ * x;
  }

 private:
  double factor_;
  bool fits_;
  R rounded_;
};

/// Looks for what is no finite number among values. Such as add up to more than there are numbers
/// for are taken for some: who asks then looks at each.
template <std::floating_point R>
class finite_probe {
 public:
  template <class... Values>
  PROSPECT_INLINE void look_at(Values... values) {
    // 0 times a number is 0, and 0 times anything else is NaN.
    seen_ += R(0) * (... + values);
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
  running_tally() = default;
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
  /// The rows from i on, which lie at x: a vector of them that is loaded as a whole would have to
  /// be taken apart.
  PROSPECT_INLINE void add_from(int which, int i, const double* x) {
    add(which, i, load_several(x));
  }
  PROSPECT_INLINE void add_from(int which, int i, const float* x) {
    add(which, i, several<double>{widened(load_vector<half_floats>(x))});
    add(which, i + lanes<double>,
        several<double>{widened(load_vector<half_floats>(x + lanes<double>))});
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

/// f(block) for each block of the rows `all`.
template <class F>
void for_each_block(range all, const F& f, std::int64_t size = block_size) {
  for (std::int64_t done = 0; done < all.count; done += size) {
    const std::int64_t left = all.count - done;
    f(range{all.first + done, left < size ? left : size});
  }
}

}  // namespace PROSPECT_CPU_ISA
}  // namespace prospect::inline v2::cpu::detail
PROSPECT_STRICT_END
