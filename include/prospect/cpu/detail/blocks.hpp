// Rows, a block at a time: read into the type arithmetic is done in, worked on as vectors of one
// fixed number of rows, and written back. Every row goes through the same instructions wherever it
// stands, and every sum adds in an order that depends on the row's index alone.
#pragma once

#include <prospect/core/strided_span.hpp>
#include <prospect/cpu/detail/several.hpp>
#include <prospect/executor.hpp>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <string_view>
#include <vector>

namespace prospect::inline v0::cpu::detail {

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

/// f(piece) for pieces of fixed size of n rows, added up in order. Threads are worth their start
/// from a quarter of a million rows on.
template <class F, executor E>
auto in_pieces(std::int64_t n, E& on, const F& f) {
  constexpr std::int64_t size = 1 << 14;
  constexpr std::int64_t worth_threads = 1 << 18;
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

inline constexpr int block_size = 64;

template <class T>
struct block {
  alignas(64) T row[block_size];

  T& operator[](std::int64_t i) { return row[i]; }
  const T& operator[](std::int64_t i) const { return row[i]; }
};

template <std::floating_point R>
PROSPECT_INLINE several<R> load_several(const block<R>& from, int i) {
  return load_vector<numbers<R>>(from.row + i);
}
/// `lanes<double>` rows, as double.
PROSPECT_INLINE several<double> load_wide(const block<double>& from, int i) {
  return load_several(from, i);
}
PROSPECT_INLINE several<double> load_wide(const block<float>& from, int i) {
  return in_double(load_vector<half_floats>(from.row + i));
}
template <std::floating_point R>
PROSPECT_INLINE void store_several(block<R>& to, int i, several<R> x) {
  store_vector(to.row + i, x.lane);
}
PROSPECT_INLINE void store_wide(block<double>& to, int i, several<double> x) {
  store_several(to, i, x);
}
PROSPECT_INLINE void store_wide(block<float>& to, int i, several<double> x) {
  store_vector(to.row + i, __builtin_convertvector(x.lane, half_floats));
}

template <class T, int n>
struct vector_of {
  // GCC ignores the attribute of a dependent alias.
  typedef T type __attribute__((vector_size(n * sizeof(T))));  // NOLINT(modernize-use-using)
};

template <class R, class T>
R converted(T x) {
  if constexpr (storage<T>) {
    return load(x);
  } else {
    return static_cast<R>(x);
  }
}

/// The rows `at` of `from`, and 0 in what is left of the block.
template <class R, class T>
void read(strided_span<const T> from, range at, block<R>& to) {
  if (at.count == block_size && from.stride() == 1) {
    const T* rows = from.data() + at.first;
    if constexpr (std::same_as<R, T>) {
      std::memcpy(to.row, rows, sizeof(to));
    } else if constexpr (std::integral<T>) {
      // By way of int32, the only integer that every instruction set converts.
      using integers = typename vector_of<T, lanes<R>>::type;
      using wide_integers = typename vector_of<std::int32_t, lanes<R>>::type;
      for (int i = 0; i < block_size; i += lanes<R>) {
        const auto x = __builtin_convertvector(load_vector<integers>(rows + i), wide_integers);
        store_several<R>(to, i, __builtin_convertvector(x, numbers<R>));
      }
    } else {
      for (int i = 0; i < block_size; ++i) to[i] = converted<R>(rows[i]);
    }
    return;
  }
  for (std::int64_t i = 0; i < at.count; ++i) to[i] = converted<R>(from[at.first + i]);
  for (std::int64_t i = at.count; i < block_size; ++i) to[i] = R(0);
}

/// x in the first `count` rows, and 0 in the others.
template <class R>
void fill(block<R>& to, R x, std::int64_t count) {
  for (R& row : to.row) row = x;
  for (std::int64_t i = count; i < block_size; ++i) to[i] = R(0);
}

template <storage S>
void write(const block<compute_t<S>>& from, range at, strided_span<S> to) {
  if (to.empty()) return;
  if (at.count == block_size && to.stride() == 1) {
    S* rows = to.data() + at.first;
    if constexpr (std::same_as<S, compute_t<S>>) {
      std::memcpy(rows, from.row, sizeof(from));
    } else {
      for (int i = 0; i < block_size; ++i) rows[i] = store<S>(from[i]);
    }
    return;
  }
  for (std::int64_t i = 0; i < at.count; ++i) to[at.first + i] = store<S>(from[i]);
}

/// x as it will be once it is stored as S.
template <storage S>
const block<compute_t<S>>& rounded(block<compute_t<S>>& x) {
  if constexpr (!std::same_as<S, compute_t<S>>) {
    for (compute_t<S>& value : x.row) value = load(store<S>(value));
  }
  return x;
}

/// What a block adds up to, before it joins its piece.
template <int N>
class block_tally {
 public:
  /// x holds the rows from i on.
  PROSPECT_INLINE void add(int which, int i, several<double> x) {
    part_[which][i / lanes<double> % parts] += x;
  }
  PROSPECT_INLINE void add_to(tally<N>& piece) const {
    for (int k = 0; k < N; ++k) {
      for (int i = 0; i < parts; ++i) {
        double* lane = piece.lane[k] + i * lanes<double>;
        const several<double> before = load_vector<doubles>(lane);
        store_vector(lane, (before + part_[k][i]).lane);
      }
    }
  }

 private:
  static constexpr int parts = 8 / lanes<double>;
  several<double> part_[N][parts];
};

/// Notes the rows in which any of `blocks` holds no finite number.
template <int N, class R>
void note_nonfinite(tally<N>& piece, range at, const block<R>& counted,
                    std::initializer_list<const block<R>*> blocks) {
  // 0 times a number is 0, and 0 times anything else is NaN. Starting from +0, no sum is -0.
  several<R> probe[4];
  for (const block<R>* b : blocks) {
    for (int i = 0; i < block_size; i += 4 * lanes<R>) {
      unrolled<4>([&](int k) __attribute__((always_inline)) {
        probe[k] += R(0) * load_several(*b, i + k * lanes<R>);
      });
    }
  }
  const several<R> all = (probe[0] + probe[1]) + (probe[2] + probe[3]);
  std::uint64_t bits[sizeof(all) / 8];
  std::memcpy(bits, &all, sizeof(all));
  std::uint64_t any = 0;
  for (const std::uint64_t b : bits) any |= b;
  if (any == 0) return;
  for (std::int64_t i = 0; i < at.count; ++i) {
    bool finite = true;
    for (const block<R>* b : blocks) finite = finite && R(0) * (*b)[i] == R(0);
    if (counted[i] == 0 || finite) continue;
    ++piece.nonfinite;
    if (piece.first_nonfinite < 0) piece.first_nonfinite = at.first + i;
  }
}

/// A row of token counts by name.
struct given_tokens {
  std::string_view name;
  strided_span<const std::int32_t> row;
};

/// How many rows have tokens on every side, and whether any count is negative.
struct token_tally {
  std::int64_t counted = 0;
  bool negative = false;

  void add(std::initializer_list<given_tokens> sides, range at) {
    block<std::int32_t> counts;
    fill(counts, std::int32_t{1}, at.count);
    std::int32_t signs = 0;
    for (const given_tokens& side : sides) {
      if (side.row.empty()) continue;
      block<std::int32_t> tokens;
      read(side.row, at, tokens);
      for (int i = 0; i < block_size; ++i) {
        signs |= tokens[i];
        counts[i] &= tokens[i] > 0 ? 1 : 0;
      }
    }
    std::int32_t in_block = 0;
    for (int i = 0; i < block_size; ++i) in_block += counts[i];
    counted += in_block;
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
}  // namespace prospect::inline v0::cpu::detail
