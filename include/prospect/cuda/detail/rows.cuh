// Elements of rows on a device: of a storage type that the kernel was compiled for, or of one that
// the row names at run time, which is the same for all threads and no more than a branch.
#pragma once

#include <prospect/batch.hpp>
#include <prospect/losses/samples.hpp>

#include <concepts>
#include <cstdint>
#include <limits>
#include <type_traits>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cuda::detail {

using prospect::detail::is_finite;

/// What comes of what is none: an index without a row, a length below 0.
template <class R>
inline constexpr R no_number = std::numeric_limits<R>::quiet_NaN();

/// Inputs are not written while the kernel runs.
__device__ inline float read(const float* x) { return __ldg(x); }
__device__ inline double read(const double* x) { return __ldg(x); }
__device__ inline std::int32_t read(const std::int32_t* x) { return __ldg(x); }
__device__ inline std::uint8_t read(const std::uint8_t* x) { return __ldg(x); }
__device__ inline float read(const bfloat16* x) {
  const std::uint16_t bits = __ldg(&x->bits);
  return load(__builtin_bit_cast(bfloat16, bits));
}
__device__ inline float read(const float16* x) {
  const std::uint16_t bits = __ldg(&x->bits);
  return load(__builtin_bit_cast(float16, bits));
}

/// For arithmetic in R.
template <class R, class T>
__device__ R read_as(const T* x) {
  return static_cast<R>(read(x));
}
/// Element i for arithmetic in R.
template <class R, class T>
__device__ R read_as(const strided_span<const T>& row, std::int64_t i) {
  return read_as<R>(&row[i]);
}
template <class R>
__device__ R read_as(const const_any_row& row, std::int64_t i) {
  switch (row.type()) {
    case dtype::f64:
      return read_as<R>(row.as<double>(), i);
    case dtype::f16:
      return read_as<R>(row.as<float16>(), i);
    case dtype::bf16:
      return read_as<R>(row.as<bfloat16>(), i);
    default:
      return read_as<R>(row.as<float>(), i);
  }
}
template <class R, class Row>
__device__ R read_or(const Row& row, std::int64_t i, R otherwise) {
  return row.empty() ? otherwise : read_as<R>(row, i);
}

/// Writes x, rounded once to what the row is made of, if it is wanted, and gives what now stands
/// there.
template <class R, storage S>
__device__ R put(const strided_span<S>& row, std::int64_t i, R x) {
  if (row.empty()) return x;
  const S stored = prospect::detail::stored_as<S>(x);
  row[i] = stored;
  return static_cast<R>(load(stored));
}
template <class R>
__device__ R put(const any_row& row, std::int64_t i, R x) {
  return row.empty() ? x : row.put(i, x);
}

/// Four neighbours of a row, as one load or store has them.
inline constexpr int four = 4;
template <class T>
struct neighbours {
  T at[four];
};
template <class T>
using four_word =
    std::conditional_t<sizeof(T) == 1, unsigned, std::conditional_t<sizeof(T) == 2, uint2, uint4>>;
template <class T>
struct four_words {
  static constexpr int size = sizeof(neighbours<T>) / sizeof(four_word<T>);
  four_word<T> at[size];
};

/// Whether elements that are a multiple of four from the first can be read or written so.
template <class T>
PROSPECT_INLINE bool in_fours(const strided_span<T>& row) {
  return row.empty() || (row.stride() == 1 && reinterpret_cast<std::uintptr_t>(row.data()) %
                                                      sizeof(four_word<std::remove_cv_t<T>>) ==
                                                  0);
}

/// Elements i to i + 3 of such a row for arithmetic in R.
template <class R, class T>
__device__ void read_four(const strided_span<const T>& row, std::int64_t i, R (&x)[four]) {
  const auto* const from = reinterpret_cast<const four_word<T>*>(row.data() + i);
  four_words<T> words;
#pragma unroll
  for (int k = 0; k < four_words<T>::size; ++k) words.at[k] = __ldg(from + k);
  const auto read = __builtin_bit_cast(neighbours<T>, words);
#pragma unroll
  for (int k = 0; k < four; ++k) {
    if constexpr (storage<T>) {
      x[k] = static_cast<R>(load(read.at[k]));
    } else {
      x[k] = read.at[k];
    }
  }
}
/// What stands in the row once x is put there: x itself where that is not wanted.
template <class R, storage S>
__device__ R as_stored(const strided_span<S>& row, R x) {
  if constexpr (std::same_as<S, R>) {
    return x;
  } else {
    return row.empty() ? x : static_cast<R>(load(prospect::detail::stored_as<S>(x)));
  }
}
/// Writes all four if they are wanted.
template <class R, storage S>
__device__ void put_four(const strided_span<S>& row, std::int64_t i, const R (&x)[four]) {
  if (row.empty()) return;
  neighbours<S> stored;
#pragma unroll
  for (int k = 0; k < four; ++k) stored.at[k] = prospect::detail::stored_as<S>(x[k]);
  const auto words = __builtin_bit_cast(four_words<S>, stored);
  auto* const to = reinterpret_cast<four_word<S>*>(row.data() + i);
#pragma unroll
  for (int k = 0; k < four_words<S>::size; ++k) to[k] = words.at[k];
}

/// Whether all numbers are finite: 0 times any other is NaN, and stays it.
template <class R>
class finite_probe {
 public:
  __device__ void look_at(R x) { sum_ = fma(x, R(0), sum_); }
  /// A log-ratio is finite where both of its log-probabilities are, and is what is left of one.
  __device__ void look_at(const completion<R>& c) { look_at(c.ratio); }
  __device__ bool finite() const { return is_finite(sum_); }
  /// Whether those of all four are.
  __device__ static bool finite(const finite_probe (&of)[four]) {
    return is_finite((of[0].sum_ + of[1].sum_) + (of[2].sum_ + of[3].sum_));
  }

 private:
  R sum_ = 0;
};

}  // namespace prospect::inline v2::cuda::detail
PROSPECT_STRICT_END
