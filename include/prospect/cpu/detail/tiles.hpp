// Some vectors at once, loaded from and stored to every storage type: by the instructions for
// binary16 and bfloat16 where there are any, since GCC 12 takes ten others instead.
#pragma once

#include <prospect/core/dtype.hpp>
#include <prospect/cpu/detail/lanes.hpp>

#include <concepts>
#include <cstddef>
#include <cstdint>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cpu::detail {
inline namespace PROSPECT_CPU_ISA {

template <class R>
PROSPECT_INLINE numbers<R> sum_of_ways(const tile<R>& t) {
  return (t.way[0] + t.way[1]) + (t.way[2] + t.way[3]);
}
template <class R>
PROSPECT_INLINE numbers<R> highest_of_ways(const tile<R>& t) {
  return larger(larger(t.way[0], t.way[1]), larger(t.way[2], t.way[3]));
}

// Without an instruction for it, two 16-bit numbers are read as one word: the even ones go to one
// vector, the odd ones to the next. The order inside a tile means nothing to a sum, and the store
// restores it.
PROSPECT_INLINE words even_halves(words u) { return u << 16; }
PROSPECT_INLINE words odd_halves(words u) { return u & 0xffff0000U; }

/// From the bits in the upper half of each word.
PROSPECT_INLINE floats widen(bfloat16, words upper) { return (floats)upper; }
/// The exponent is rebased by an exact multiplication, which also makes subnormals normal floats.
PROSPECT_INLINE floats widen(float16, words upper) {
  const floats x = (floats)((upper & 0x7fff0000U) >> 3) * 0x1p112F;
  // Infinity and NaN come out as 65536 and more: force their exponent.
  const words special = (words)(x >= 65536.0F) & 0x7f800000U;
  return (floats)((words)x | special | (upper & 0x80000000U));
}

/// To bits in the upper half of each word, rounded to nearest even. A NaN that arithmetic made
/// stays one; a payload with all lower bits set would not, and callers keep those away.
PROSPECT_INLINE words narrow(bfloat16, floats x) {
  const auto u = (words)x;
  return u + 0x7fffU + ((u >> 16) & 1U);
}
/// The same arithmetic as float16's conversion, all branches at once.
PROSPECT_INLINE words narrow(float16, floats x) {
  const auto u = (words)x;
  const words magnitude = u & 0x7fffffffU;
  const words rebased = magnitude - 0x38000000U;
  const words normal = (rebased + 0xfffU + ((rebased >> 13) & 1U)) >> 13;
  const words subnormal = (words)((floats)magnitude + 0.5F) - 0x3f000000U;
  words h = magnitude < 0x38800000U ? subnormal : normal;
  h = magnitude >= 0x477ff000U ? words{} + 0x7c00U : h;
  h = magnitude > 0x7f800000U ? words{} + 0x7e00U : h;
  return (h << 16) | (u & 0x80000000U);
}

#if PROSPECT_CPU_VECTOR_BYTES == 64
using binary16_block = __m256i;
PROSPECT_INLINE floats widen(binary16_block h) { return (floats)_mm512_maskz_cvtph_ps(0xffff, h); }
PROSPECT_INLINE binary16_block narrow(floats x) {
  return _mm512_maskz_cvtps_ph(0xffff, (__m512)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
#elif PROSPECT_CPU_VECTOR_BYTES == 32
using binary16_block = __m128i;
PROSPECT_INLINE floats widen(binary16_block h) { return (floats)_mm256_cvtph_ps(h); }
PROSPECT_INLINE binary16_block narrow(floats x) {
  return _mm256_cvtps_ph((__m256)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
#endif

template <storage S>
PROSPECT_INLINE tile<compute_t<S>> load_tile(const S* p) {
  using R = compute_t<S>;
  tile<R> t;
#if PROSPECT_CPU_VECTOR_BYTES > 16
  if constexpr (std::same_as<S, float16>) {
    unrolled<ways>([&](int w) __attribute__((always_inline)) {
      t.way[w] = widen(load_vector<binary16_block>(p + w * lanes<R>));
    });
    return t;
  }
#endif
  if constexpr (sizeof(S) == 2) {
    unrolled<ways / 2>([&](int w) __attribute__((always_inline)) {
      const auto u = load_vector<words>(p + 2 * w * lanes<R>);
      t.way[2 * w] = widen(S{}, even_halves(u));
      t.way[2 * w + 1] = widen(S{}, odd_halves(u));
    });
  } else {
    unrolled<ways>([&](int w) __attribute__((always_inline)) {
      t.way[w] = load_vector<numbers<R>>(p + w * lanes<R>);
    });
  }
  return t;
}

template <storage S>
PROSPECT_INLINE void store_tile(S* p, const tile<compute_t<S>>& t) {
  using R = compute_t<S>;
#if PROSPECT_CPU_VECTOR_BYTES > 16
  if constexpr (std::same_as<S, float16>) {
    unrolled<ways>([&](int w) __attribute__((always_inline)) {
      store_vector(p + w * lanes<R>, narrow(t.way[w]));
    });
    return;
  }
#endif
  if constexpr (sizeof(S) == 2) {
    unrolled<ways / 2>([&](int w) __attribute__((always_inline)) {
      const words even = narrow(S{}, t.way[2 * w]) >> 16;
      const words odd = odd_halves(narrow(S{}, t.way[2 * w + 1]));
      store_vector(p + 2 * w * lanes<R>, even | odd);
    });
  } else {
    unrolled<ways>([&](int w) __attribute__((always_inline)) {
      store_vector(p + w * lanes<R>, t.way[w]);
    });
  }
}

/// A tile that is to be stored again, by `store_changed_tile`, which does not mix with the others.
template <storage S>
PROSPECT_INLINE tile<compute_t<S>> load_tile_to_change(const S* p) {
  return load_tile(p);
}
template <storage S>
PROSPECT_INLINE void store_changed_tile(S* p, const tile<compute_t<S>>& t) {
  store_tile(p, t);
}
#if PROSPECT_CPU_KEEPS_AVX512 && defined(__AVX512BF16__)
/// In order, because the instruction that rounds takes two vectors.
PROSPECT_INLINE tile<float> load_tile_to_change(const bfloat16* p) {
  tile<float> t;
  unrolled<ways>([&](int w) __attribute__((always_inline)) {
    const auto halves = load_vector<__m256i>(p + w * lanes<float>);
    t.way[w] = (floats)((words)_mm512_maskz_cvtepu16_epi32(0xffff, halves) << 16);
  });
  return t;
}
PROSPECT_INLINE void store_changed_tile(bfloat16* p, const tile<float>& t) {
  unrolled<ways / 2>([&](int w) __attribute__((always_inline)) {
    store_vector(p + 2 * w * lanes<float>,
                 (words)_mm512_cvtne2ps_pbh((__m512)t.way[2 * w + 1], (__m512)t.way[2 * w]));
  });
}
#endif

/// The last, partial tile of a row goes through a buffer, so that it takes the same arithmetic.
template <storage S>
PROSPECT_INLINE tile<compute_t<S>> load_part(const S* p, std::int64_t count, compute_t<S> filler) {
  S buffer[tile_size<compute_t<S>>];
  for (int i = 0; i < tile_size<compute_t<S>>; ++i) {
    buffer[i] = i < count ? p[i] : store<S>(filler);
  }
  return load_tile(buffer);
}
template <storage S>
PROSPECT_INLINE void store_part(S* p, const tile<compute_t<S>>& t, std::int64_t count) {
  S buffer[tile_size<compute_t<S>>];
  store_tile(buffer, t);
  for (int i = 0; i < count; ++i) p[i] = buffer[i];
}

/// Asks for the cache lines ahead of a tile: left alone, some hardware leaves half of a core's
/// bandwidth unused. From far away into the second level, which has more requests in flight, from
/// close by into the first. Far is more than arrives while one line is on its way. Never faults, so
/// it may run past the end.
template <storage S>
PROSPECT_INLINE void prefetch_ahead(const S* p) {
  constexpr int lines = (tile_size<compute_t<S>> * static_cast<int>(sizeof(S)) + 63) / 64;
  unrolled<lines>([&](int i) __attribute__((always_inline)) {
    const char* const line = reinterpret_cast<const char*>(p) + std::ptrdiff_t{64} * i;
    __builtin_prefetch(line + 16384, 0, 2);
    __builtin_prefetch(line + 1024, 0, 3);
  });
}

}  // namespace PROSPECT_CPU_ISA

}  // namespace prospect::inline v2::cpu::detail
PROSPECT_STRICT_END
