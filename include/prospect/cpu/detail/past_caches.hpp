// Results of more rows than caches hold, written past them: lines of memory that are written whole
// need not be read first, which for losses of tokens is a third of all traffic.
#pragma once

#include <prospect/cpu/detail/lanes.hpp>

#include <algorithm>
#include <cstring>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cpu::detail {
inline namespace PROSPECT_CPU_ISA {

/// From so many rows on, with what they are computed from more than a core has a cache for: fewer
/// may have been there, and are found there by who reads them next.
inline constexpr std::int64_t worth_passing_caches = std::int64_t{1} << 17;
inline constexpr int cache_line = 64;

/// A line of memory that begins at `to`.
PROSPECT_INLINE void write_line_past_caches(void* to, const void* from) {
#if PROSPECT_CPU_VECTOR_BYTES == 64
  _mm512_stream_si512(static_cast<__m512i*>(to), _mm512_loadu_si512(from));
#elif PROSPECT_CPU_VECTOR_BYTES == 32
  for (int k = 0; k < 2; ++k) {
    _mm256_stream_si256(static_cast<__m256i*>(to) + k,
                        _mm256_loadu_si256(static_cast<const __m256i*>(from) + k));
  }
#elif defined(__SSE2__) && !defined(__CUDACC__)
  for (int k = 0; k < 4; ++k) {
    _mm_stream_si128(static_cast<__m128i*>(to) + k,
                     _mm_loadu_si128(static_cast<const __m128i*>(from) + k));
  }
#else
  std::memcpy(to, from, cache_line);
#endif
}

/// After the last: other threads see what was written so no later than what is written next.
PROSPECT_INLINE void finish_past_caches() {
#if (PROSPECT_CPU_VECTOR_BYTES > 16 || defined(__SSE2__)) && !defined(__CUDACC__)
  _mm_sfence();
#endif
}

/// n bytes of zeros; through the caches where they share a line with others. (A memset of nothing
/// still waits for the line that it would be to.)
inline void clear_past_caches(std::byte* to, std::int64_t n) {
  constexpr std::byte zeros[cache_line]{};
  const auto address = reinterpret_cast<std::uintptr_t>(to);
  std::int64_t i = (std::min)(n, static_cast<std::int64_t>((0 - address) % cache_line));
  if (i > 0) std::memset(to, 0, static_cast<std::size_t>(i));
  for (; i + cache_line <= n; i += cache_line) write_line_past_caches(to + i, zeros);
  if (i < n) std::memset(to + i, 0, static_cast<std::size_t>(n - i));
}

/// Results of a block, strip by strip: written where they lie; or past the caches, when those that
/// do not fill a line wait for the next strip; or forgotten, where nobody asks for them.
template <std::floating_point R, int most>
class strip_results {
 public:
  /// n of them, which go to `row`.
  PROSPECT_INLINE strip_results(R* row, int n, bool past_caches)
      : row_{row}, past_caches_{past_caches} {
    if (!past_caches) return;
    others_ = static_cast<int>(reinterpret_cast<std::uintptr_t>(row) % cache_line / sizeof(R));
    waiting_ = others_;
    line_ = row - others_;
    // Lines that are shared, to be there at the end. (To ask for one waits for its page.)
    const auto end = reinterpret_cast<std::uintptr_t>(row + n);
    if (others_ > 0) __builtin_prefetch(row, 1, 3);
    if (end % cache_line != 0) __builtin_prefetch(row + n, 1, 3);
  }

  /// Where those from the i-th on go, at most so many, until they are added.
  PROSPECT_INLINE R* from(int i) {
    return row_ == nullptr || past_caches_ ? strip_ + waiting_ : row_ + i;
  }
  PROSPECT_INLINE void add(int n) {
    if (!past_caches_) return;
    const int all = waiting_ + n;
    int i = 0;
    if (others_ > 0 && in_first_line() && all >= in_line) {
      std::memcpy(first_, strip_, cache_line);
      i = in_line;
    }
    for (; i + in_line <= all; i += in_line) write_line_past_caches(line_ + i, strip_ + i);
    if (i > 0) std::memcpy(strip_, strip_ + i, cache_line);
    line_ += i;
    waiting_ = all - i;
  }
  /// After the last.
  PROSPECT_INLINE void finish() const {
    if (!past_caches_) return;
    const int mine = in_first_line() ? others_ : 0;
    std::copy(strip_ + mine, strip_ + waiting_, line_ + mine);
    if (mine < others_) std::copy(first_ + others_, first_ + in_line, row_);
  }

 private:
  static constexpr int in_line = cache_line / sizeof(R);

  bool in_first_line() const { return line_ == row_ - others_; }

  alignas(cache_line) R strip_[most + 2 * in_line];
  alignas(cache_line) R first_[in_line];
  R* row_;
  R* line_ = nullptr;  ///< which the next result is of
  int others_ = 0;     ///< numbers of the first line that come before the row
  int waiting_ = 0;    ///< numbers at the beginning of the strip whose line is not full
  bool past_caches_;
};

}  // namespace PROSPECT_CPU_ISA
}  // namespace prospect::inline v2::cpu::detail
PROSPECT_STRICT_END
