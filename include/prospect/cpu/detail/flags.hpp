// Flags of rows as bits of a word, which counts them and finds the next of them in an instruction.
#pragma once

#include <prospect/cpu/detail/lanes.hpp>

#include <bit>
#include <cstdint>
#include <cstring>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cpu::detail {
inline namespace PROSPECT_CPU_ISA {

inline constexpr int flags_in_word = 64;

/// Bit i is set where the i-th of 64 bytes is not 0.
PROSPECT_INLINE std::uint64_t word_of_bytes(const std::uint8_t* from) {
#if PROSPECT_CPU_VECTOR_BYTES > 16
  // Halves, as whoever wrote them may have: what is read at once should have been written at once.
  const auto half = [](const std::uint8_t* p) __attribute__((always_inline)) {
    const __m256i x = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    const __m256i zero = _mm256_cmpeq_epi8(x, _mm256_setzero_si256());
    return std::uint64_t{~static_cast<std::uint32_t>(_mm256_movemask_epi8(zero))};
  };
  return half(from) | half(from + 32) << 32;
#elif defined(__SSE2__) && !defined(__CUDACC__)
  std::uint64_t word = 0;
  for (int k = 0; k < 4; ++k) {
    const __m128i x = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from) + k);
    const int zero = _mm_movemask_epi8(_mm_cmpeq_epi8(x, _mm_setzero_si128()));
    word |= std::uint64_t{static_cast<std::uint16_t>(~zero)} << (16 * k);
  }
  return word;
#else
  std::uint64_t word = 0;
  for (int k = 0; k < flags_in_word; k += 8) {
    std::uint64_t bytes = 0;
    for (int i = 0; i < 8; ++i) bytes |= std::uint64_t{from[k + i]} << (8 * i);
    constexpr std::uint64_t low = 0x7f7f7f7f7f7f7f7fU;
    const std::uint64_t ones = (((bytes & low) + low) | bytes) >> 7 & 0x0101010101010101U;
    word |= (ones * 0x0102040810204080U >> 56) << k;
  }
  return word;
#endif
}
/// The same of n bytes, 1 to 64.
PROSPECT_INLINE std::uint64_t word_of_bytes(const std::uint8_t* from, std::int64_t n) {
  if (n == flags_in_word) return word_of_bytes(from);
  std::uint8_t all[flags_in_word]{};
  std::memcpy(all, from, static_cast<std::size_t>(n));
  return word_of_bytes(all);
}

/// f(first, n) for each run of bits of a word that are set.
template <class F>
PROSPECT_INLINE void for_each_run_of_flags(std::uint64_t word, const F& f) {
  for (int first = 0; word != 0;) {
    const int zeros = std::countr_zero(word);
    word >>= zeros;
    const int n = std::countr_one(word);
    f(first + zeros, n);
    first += zeros + n;
    word = n < flags_in_word ? word >> n : 0;
  }
}

}  // namespace PROSPECT_CPU_ISA
}  // namespace prospect::inline v2::cpu::detail
PROSPECT_STRICT_END
