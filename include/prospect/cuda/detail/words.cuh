// Rows of numbers as words of 16 bytes, whatever address a row starts at: what every kernel over
// logits reads and writes its memory with.
//
// A vocabulary of 50257 puts all rows but one at odd addresses. The words of a row are counted from
// its first column all the same, so that which thread adds what, and with it every bit of a result,
// does not depend on where the row lies. Such a word is put together from the two aligned words
// that it straddles; the second of them is in the L1 cache by then.
#pragma once

#include <prospect/core/dtype.hpp>

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <utility>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cuda::detail {

inline constexpr int lanes = 32;
inline constexpr unsigned all_lanes = 0xffffffffU;

using word = uint4;

__device__ inline int lane_of_warp() { return static_cast<int>(threadIdx.x) % lanes; }

template <storage S>
inline constexpr int per_word = static_cast<int>(sizeof(word) / sizeof(S));

/// The toolkit's 16-bit types are no trivial ones, so std::bit_cast would not have them.
template <class To, class From>
__device__ To same_bits(const From& from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  memcpy(&to, &from, sizeof(to));
  return to;
}

// ---- Numbers in and out of words --------------------------------------------------------------

__device__ inline void unpack(const word& w, float (&x)[4], float) {
  x[0] = __uint_as_float(w.x);
  x[1] = __uint_as_float(w.y);
  x[2] = __uint_as_float(w.z);
  x[3] = __uint_as_float(w.w);
}
__device__ inline void unpack(const word& w, float (&x)[8], bfloat16) {
  const unsigned parts[4] = {w.x, w.y, w.z, w.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    x[2 * i] = __uint_as_float(parts[i] << 16);
    x[2 * i + 1] = __uint_as_float(parts[i] & 0xffff0000U);
  }
}
__device__ inline void unpack(const word& w, float (&x)[8], float16) {
  const unsigned parts[4] = {w.x, w.y, w.z, w.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 two = __half22float2(same_bits<__half2>(parts[i]));
    x[2 * i] = two.x;
    x[2 * i + 1] = two.y;
  }
}

__device__ inline word pack(const float (&x)[4], float) {
  return {__float_as_uint(x[0]), __float_as_uint(x[1]), __float_as_uint(x[2]),
          __float_as_uint(x[3])};
}
__device__ inline word pack(const float (&x)[8], bfloat16) {
  const auto two = [&](int i) {
    return same_bits<unsigned>(__floats2bfloat162_rn(x[2 * i], x[2 * i + 1]));
  };
  return {two(0), two(1), two(2), two(3)};
}
__device__ inline word pack(const float (&x)[8], float16) {
  const auto two = [&](int i) {
    return same_bits<unsigned>(__floats2half2_rn(x[2 * i], x[2 * i + 1]));
  };
  return {two(0), two(1), two(2), two(3)};
}

/// Of 32 bits numbers become 16: half a word.
__device__ inline uint2 pack(const float (&x)[4], bfloat16) {
  const auto two = [&](int i) {
    return same_bits<unsigned>(__floats2bfloat162_rn(x[2 * i], x[2 * i + 1]));
  };
  return {two(0), two(1)};
}
__device__ inline uint2 pack(const float (&x)[4], float16) {
  const auto two = [&](int i) {
    return same_bits<unsigned>(__floats2half2_rn(x[2 * i], x[2 * i + 1]));
  };
  return {two(0), two(1)};
}

/// The highest number of some words, of 16 bits two at a time; NaN only where there is nothing
/// else.
template <storage S>
class highest_number {
 public:
  __device__ void look_at(const word& w) {
    if constexpr (sizeof(S) == 4) {
      const float z = fmaxf(__uint_as_float(w.z), __uint_as_float(w.w));
      highest_ = fmaxf(highest_, fmaxf(fmaxf(__uint_as_float(w.x), __uint_as_float(w.y)), z));
    } else {
      pair_ = __hmax2(
          pair_, __hmax2(__hmax2(as_pair(w.x), as_pair(w.y)), __hmax2(as_pair(w.z), as_pair(w.w))));
    }
  }
  __device__ float value() const {
    if constexpr (sizeof(S) == 4) {
      return highest_;
    } else {
      return fmaxf(__low2float(pair_), __high2float(pair_));
    }
  }

 private:
  using pair = std::conditional_t<std::is_same_v<S, bfloat16>, __nv_bfloat162, __half2>;
  __device__ static pair as_pair(unsigned bits) { return same_bits<pair>(bits); }

  float highest_ = -std::numeric_limits<float>::infinity();
  pair pair_ = as_pair(std::is_same_v<S, bfloat16> ? 0xff80ff80U : 0xfc00fc00U);
};

/// The i-th number of a word becomes -inf.
template <storage S>
__device__ void take_out(word& w, int i) {
  constexpr int per_part = per_word<S> / 4;
  const auto out_of = [&](unsigned& part, int first) {
    if constexpr (sizeof(S) == 4) {
      if (i == first) part = 0xff800000U;
    } else {
      constexpr unsigned none = std::is_same_v<S, bfloat16> ? 0xff80U : 0xfc00U;
      if (i == first) part = (part & 0xffff0000U) | none;
      if (i == first + 1) part = (part & 0xffffU) | none << 16;
    }
  };
  out_of(w.x, 0);
  out_of(w.y, per_part);
  out_of(w.z, 2 * per_part);
  out_of(w.w, 3 * per_part);
}

// ---- Loads ------------------------------------------------------------------------------------

// `is_far`: worth many loads on their way at a time.

/// Of memory that nothing writes while the kernel runs.
struct constant_memory {
  static constexpr bool is_far = true;

  __device__ static word load(const word* from) { return __ldg(from); }
  __device__ static float load(const float* from) { return __ldg(from); }
  template <class S>
  __device__ static S load(const S* from) {
    return same_bits<S>(__ldg(&from->bits));
  }
};
/// Of global memory that the kernel itself writes. Saying where a pointer points saves a generic
/// load from finding it out.
struct changing_memory {
  static constexpr bool is_far = true;

  template <class T>
  __device__ static T load(const T* from) {
    __builtin_assume(__isGlobal(from));
    return *from;
  }
};
/// Of what this block copied to its dynamic shared memory, from whose beginning it is found again:
/// that a pointer is shared could be said by an assumption as well, but nvcc 13.0 then takes loads
/// that follow each other for impossible, and leaves them out.
struct shared_memory {
  static constexpr bool is_far = false;

  template <class T>
  __device__ static T load(const T* from) {
    extern __shared__ word block_memory[];
    const auto at = __cvta_generic_to_shared(from) - __cvta_generic_to_shared(block_memory);
    return *reinterpret_cast<const T*>(reinterpret_cast<const std::byte*>(block_memory) + at);
  }
};
/// Of what nobody looks at.
struct nothing {
  static constexpr bool is_far = false;

  template <class T>
  __device__ static T load(const T*) {
    return T{};
  }
};

/// The 16 bytes that start `bytes` into two neighbouring words; `bytes` is a multiple of sizeof(S),
/// and the same for all lanes.
template <storage S>
__device__ word straddle(const word& a, const word& b, unsigned bytes) {
  unsigned v[8] = {a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w};
  const auto part = [&](int i) { return __funnelshift_r(v[i], v[i + 1], 8 * (bytes & 3U)); };
  if constexpr (sizeof(S) == 2) {
    // A branch to one of four, in which to skip whole registers costs nothing.
    if (bytes >= 12) return {part(3), part(4), part(5), part(6)};
    if (bytes >= 8) return {part(2), part(3), part(4), part(5)};
    if (bytes >= 4) return {part(1), part(2), part(3), part(4)};
    return {part(0), part(1), part(2), part(3)};
  } else {
    // There would be nothing else in the branches; an array would be indexed in local memory.
    const auto skip = [&](bool so, int by) {
#pragma unroll
      for (int i = 0; i + by < 8; ++i) v[i] = so ? v[i + by] : v[i];
    };
    skip((bytes & 8U) != 0, 2);
    skip((bytes & 4U) != 0, 1);
    return {v[0], v[1], v[2], v[3]};
  }
}

/// Some columns of a row, as words counted from the first of them.
template <storage S, class Memory>
struct row_words {
  const S* data;  ///< the first of the columns
  int columns;    ///< how many
  bool at_start;  ///< whether memory before `data` is out of bounds
  int readable;   ///< how many columns from `data` on may be read; not less than `columns`

  __device__ int words() const { return (columns + per_word<S> - 1) / per_word<S>; }

  /// Words first, first + 32, ... as one lane reads them: all loads before the first use. Columns
  /// that do not exist are `filler`; words beyond the last are full of it.
  template <int n>
  __device__ void load(word (&loaded)[n], int first, S filler) const {
    const auto address = reinterpret_cast<std::uintptr_t>(data);
    const unsigned bytes = static_cast<unsigned>(address % sizeof(word));
    const word* const aligned = reinterpret_cast<const word*>(address - bytes);
    // Words from `begin` to `end` lie in aligned words that may be read whole.
    const int begin = bytes != 0 && at_start ? 1 : 0;
    const int whole = (readable + static_cast<int>(bytes / sizeof(S))) / per_word<S>;
    const int end = bytes != 0 ? whole - 1 : whole;
    if (bytes == 0 && first - lane_of_warp() + n * lanes <= end) {
      // As most are: nothing to ask for each.
      const word* const from = aligned + first;
#pragma unroll
      for (int k = 0; k < n; ++k) loaded[k] = Memory::load(from + k * lanes);
      return;
    }
    const auto inside = [&](int k) {
      const int w = first + k * lanes;
      return w >= begin && w < end;
    };
    const auto word_at = [&](int k, int offset) {
      return inside(k) ? Memory::load(aligned + first + k * lanes + offset) : word{};
    };
    if constexpr (Memory::is_far) {
      // All first halves before one of them is used. The second ones lie in the L1 cache by then,
      // or are on their way there.
#pragma unroll
      for (int k = 0; k < n; ++k) loaded[k] = word_at(k, 0);
      if (bytes != 0) {
#pragma unroll
        for (int k = 0; k < n; ++k) loaded[k] = straddle<S>(loaded[k], word_at(k, 1), bytes);
      }
    } else {
#pragma unroll
      for (int k = 0; k < n; ++k) {
        loaded[k] = word_at(k, 0);
        if (bytes != 0) loaded[k] = straddle<S>(loaded[k], word_at(k, 1), bytes);
      }
    }
#pragma unroll
    for (int k = 0; k < n; ++k) {
      if (!inside(k)) loaded[k] = edge(first + k * lanes, filler);
    }
  }

 private:
  /// A word at an end of the row, column by column.
  __device__ word edge(int w, S filler) const {
    S column[per_word<S>];
#pragma unroll
    for (int i = 0; i < per_word<S>; ++i) {
      const int j = w * per_word<S> + i;
      column[i] = j < columns ? Memory::load(data + j) : filler;
    }
    if constexpr (sizeof(S) == 4) {
      return {__float_as_uint(column[0]), __float_as_uint(column[1]), __float_as_uint(column[2]),
              __float_as_uint(column[3])};
    } else {
      const auto two = [&](int i) {
        return column[2 * i].bits | static_cast<unsigned>(column[2 * i + 1].bits) << 16;
      };
      return {two(0), two(1), two(2), two(3)};
    }
  }
};

// ---- Writing ----------------------------------------------------------------------------------

/// out[j] = f(in[j]) for all columns of a piece of a row, by one warp: what comes of a word at a
/// time where `out` is aligned for it, `F::words_in_flight` words on their way, and single numbers
/// at both ends. `in` may be the memory that `out` points to where both store the same type.
template <storage S, class Memory, storage Out, class F>
__device__ void transform(const row_words<S, Memory>& in, Out* out, const F& f) {
  constexpr int in_flight = F::words_in_flight;
  constexpr int n = per_word<S>;
  using out_word = decltype(pack(std::declval<const float(&)[n]>(), Out{}));
  static_assert(sizeof(out_word) == n * sizeof(Out));
  const int lane = lane_of_warp();
  const auto misaligned =
      static_cast<int>(reinterpret_cast<std::uintptr_t>(out) % sizeof(out_word) / sizeof(Out));
  const int to_alignment = misaligned == 0 ? 0 : n - misaligned;
  const int head = to_alignment < in.columns ? to_alignment : in.columns;
  const int words = (in.columns - head) / n;
  const int tail = in.columns - head - words * n;

  // One lane for each number at the ends.
  const int at = lane < head                    ? lane
                 : lane >= n && lane < n + tail ? in.columns - tail + lane - n
                                                : -1;
  if (at >= 0) out[at] = store<Out>(f(prospect::load(Memory::load(in.data + at))));

  // Nothing beyond, even where it could be read: another lane or warp may be writing it.
  const row_words<S, Memory> body{.data = in.data + head,
                                  .columns = words * n,
                                  .at_start = in.at_start && head == 0,
                                  .readable = words * n};
  out_word* const to = reinterpret_cast<out_word*>(out + head);
  for (int first = lane; first < words + lane; first += in_flight * lanes) {
    word w[in_flight];
    body.load(w, first, S{});
    const auto put = [&](int k) {
      float x[n];
      unpack(w[k], x, S{});
#pragma unroll
      for (int i = 0; i < n; ++i) x[i] = f(x[i]);
      __stcs(to + first + k * lanes, pack(x, Out{}));
    };
    if (first - lane + in_flight * lanes <= words) {
      // As most are: no question between two words, so that they overlap.
#pragma unroll
      for (int k = 0; k < in_flight; ++k) put(k);
    } else {
#pragma unroll
      for (int k = 0; k < in_flight; ++k) {
        if (first + k * lanes < words) put(k);
      }
    }
  }
}

}  // namespace prospect::inline v2::cuda::detail
PROSPECT_STRICT_END
