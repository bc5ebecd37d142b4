// Tiles of a row in shared memory, where they wait for their second reading.
#pragma once

#include <prospect/cuda/detail/token_sums.cuh>
#include <prospect/cuda/detail/words.cuh>

#include <cuda_pipeline.h>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cuda::detail {

static_assert(sizeof(vocabulary_partial) % sizeof(word) == 0);

/// Shared memory for a tile that may start anywhere in a word.
template <storage S>
inline constexpr std::size_t resident_bytes = (words_per_tile + 1) * sizeof(word);

/// Copies a tile to `memory` in shared memory, where it is as far from a multiple of 16 bytes as it
/// was. Asynchronous until the caller waits.
template <storage S>
__device__ void make_resident(const row_words<S, changing_memory>& tile, std::byte* memory) {
  const auto address = reinterpret_cast<std::uintptr_t>(tile.data);
  const auto bytes = static_cast<unsigned>(address % sizeof(word));
  const int before = static_cast<int>(bytes / sizeof(S));
  const word* const aligned = reinterpret_cast<const word*>(address - bytes);
  // Words that lie in the row are copied whole, with what they hold of the tiles around.
  const int begin = before != 0 && tile.at_start ? 1 : 0;
  const int in_row = (tile.readable + before) / per_word<S>;
  const int of_tile = (tile.columns + before + per_word<S> - 1) / per_word<S>;
  const int end = in_row < of_tile ? in_row : of_tile;
  for (int w = begin + lane_of_warp(); w < end; w += lanes) {
    __pipeline_memcpy_async(reinterpret_cast<word*>(memory) + w, aligned + w, sizeof(word));
  }
  // The numbers at the row's ends.
  S* const copy = reinterpret_cast<S*>(memory + bytes);
  const int head = begin == 0 ? 0 : per_word<S> - before;
  const int tail = end > begin ? end * per_word<S> - before : head;
  const auto copy_one = [&](int j, int stop) {
    if (j < stop && j < tile.columns) copy[j] = tile.data[j];
  };
  copy_one(lane_of_warp(), head);
  copy_one(tail + lane_of_warp(), tile.columns);
}

/// The same tile, there.
template <storage S>
__device__ row_words<S, shared_memory> resident_tile(const row_words<S, changing_memory>& tile,
                                                     const std::byte* memory) {
  const auto bytes = reinterpret_cast<std::uintptr_t>(tile.data) % sizeof(word);
  const int before = static_cast<int>(bytes / sizeof(S));
  const int of_tile = (tile.columns + before + per_word<S> - 1) / per_word<S>;
  const int copied = of_tile * per_word<S> - before;
  return {.data = reinterpret_cast<const S*>(memory + bytes),
          .columns = tile.columns,
          .at_start = tile.at_start,
          .readable = tile.readable < copied ? tile.readable : copied};
}

}  // namespace prospect::inline v2::cuda::detail
PROSPECT_STRICT_END
