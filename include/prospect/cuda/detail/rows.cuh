// Elements of rows on a device: of a storage type that the kernel was compiled for, or of one that
// the row names at run time, which is the same for all threads and no more than a branch.
#pragma once

#include <prospect/batch.hpp>
#include <prospect/losses/samples.hpp>

#include <limits>

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

/// Element i for arithmetic in R.
template <class R, class T>
__device__ R read_as(const strided_span<const T>& row, std::int64_t i) {
  return static_cast<R>(read(&row[i]));
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

/// Whether all numbers are finite: 0 times any other is NaN, and stays it.
template <class R>
class finite_probe {
 public:
  __device__ void look_at(R x) { sum_ = fma(x, R(0), sum_); }
  __device__ void look_at(const completion<R>& c) {
    look_at(c.policy);
    look_at(c.ratio);
  }
  __device__ bool finite() const { return is_finite(sum_); }

 private:
  R sum_ = 0;
};

}  // namespace prospect::inline v2::cuda::detail
PROSPECT_STRICT_END
