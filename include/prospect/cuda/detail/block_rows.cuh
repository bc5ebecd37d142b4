// Which rows are a block's that has one sequence of a batch.
#pragma once

#include <prospect/layout.hpp>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cuda::detail {

/// The rows of sequence i, which a block has, and those between it and the one before, which belong
/// to none. The last block has what lies behind its sequence as well; there is one even if there is
/// no sequence. Offsets on a device are believed only inside the batch.
struct block_rows {
  std::int64_t gap, begin, end, tail, rows;

  __device__ block_rows(const sequence_layout& layout, std::int64_t i, std::int64_t count)
      : gap{0}, begin{0}, end{0}, tail{0}, rows{count} {
    const auto inside = [&](std::int64_t t) { return t < 0 ? 0 : t > count ? count : t; };
    const bool exists = i < layout.sequences();
    if (exists) {
      gap = inside(layout.gap(i));
      begin = inside(layout.begin(i));
      end = inside(layout.end(i));
    }
    tail = i + 1 >= layout.sequences() ? end : count;
  }

  /// Behind the last of them all.
  __device__ std::int64_t stop() const { return tail == end ? rows : end; }

  /// Calls outside(t) for this thread's share of the rows of no sequence.
  template <class F>
  __device__ void for_each_outside(const F& outside) const {
    for (std::int64_t t = gap + threadIdx.x; t < begin; t += blockDim.x) outside(t);
    for (std::int64_t t = tail + threadIdx.x; t < rows; t += blockDim.x) outside(t);
  }
  template <class F>
  __device__ void for_each_inside(const F& inside) const {
    for (std::int64_t t = begin + threadIdx.x; t < end; t += blockDim.x) inside(t);
  }
};

}  // namespace prospect::inline v2::cuda::detail
PROSPECT_STRICT_END
