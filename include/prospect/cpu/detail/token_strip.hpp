// What is worked out of a strip of a block of tokens before their loss is, in loops of its own: a
// processor looks so many instructions ahead, and has several tokens under way at once only in a
// loop of few.
#pragma once

#include <prospect/cpu/detail/token_samples.hpp>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cpu::detail {

/// What is known of the tokens of a block before any is looked at.
enum class block_kind {
  whole,                 ///< in whole vectors, of one advantage, with nothing that is optional
  whole_with_reference,  ///< likewise, but for a reference
  any
};

inline namespace PROSPECT_CPU_ISA {

/// f(i) for every vector of n tokens. Not unrolled: a strip has few of them, which GCC would write
/// out one after the other.
template <std::floating_point R, class F>
PROSPECT_INLINE void for_each_vector(int n, const F& f) {
#if defined(__GNUC__) && !defined(__clang__) && !defined(__CUDACC__)
#pragma GCC unroll 1
#endif
  for (int i = 0; i < n; i += lanes<R>) f(i);
}

/// Tokens that are all kept: what is asked of them costs nothing.
struct all_kept {
  template <std::floating_point R>
  PROSPECT_INLINE friend several<R> select(all_kept, several<R> a, several<R> /*b*/) {
    return a;
  }
  template <std::floating_point R>
  PROSPECT_INLINE friend mask<R> operator&&(all_kept, mask<R> m) {
    return m;
  }
  PROSPECT_INLINE constexpr bool operator[](int) const { return true; }
};
/// Which of the tokens from i on are kept, as far as that has to be asked.
template <block_kind kind, std::floating_point R>
PROSPECT_INLINE auto kept(const tokens_at<R>& rows, [[maybe_unused]] int i) {
  if constexpr (kind == block_kind::any) {
    return rows.kept(i);
  } else {
    return all_kept{};
  }
}

/// What is worked out where it is asked for, as by token_exponentials, in a batch with a reference
/// or without.
template <bool reference>
struct own_exponentials : token_exponentials {
  static constexpr bool has_reference = reference;
};

/// Where a strip of tokens is, with what was worked out of it. In place of what comes from a row
/// that is not given stand numbers that change nothing, so that the loop over a loss has nothing to
/// ask.
template <std::floating_point R>
struct strip_at {
  static constexpr const R* zeros = ones<R>.row + block_size;

  const R* policy;
  const R* advantage;
  const R* log_ratio = zeros;
  const R* ratio = ones<R>.row;
  const R* log_reference_ratio = zeros;
  const R* k3 = zeros;
  const R* k3_slope = zeros;
  const R* probed;  ///< not finite where a token's rows are not, though no sum may show it
  const R* soon;    ///< what the loop over a loss asks memory for

  PROSPECT_INLINE tokens<R> several_of(int i) const {
    return {.policy = load_several(policy + i),
            .ratio = load_several(log_ratio + i),
            .reference_ratio = load_several(log_reference_ratio + i),
            .advantage = load_several(advantage + i)};
  }
  template <bool reference>
  PROSPECT_INLINE known_exponentials<R, reference> exponentials_of(int i) const {
    return {.known_ratio = load_several(ratio + i),
            .known_k3 = {load_several(k3 + i), load_several(k3_slope + i)}};
  }
};

/// Room for what is worked out of a strip. Strips are short and rows are asked for in different
/// loops, since memory is best busy all the time.
template <std::floating_point R>
struct token_strip {
  static constexpr int most = 128;
  alignas(64) R log_ratio[most];
  alignas(64) R ratio[most];
  alignas(64) R log_reference_ratio[most];
  alignas(64) R k3[most];
  alignas(64) R k3_slope[most];

  /// Of the first n tokens; exponentials are 0 where they are not kept.
  template <block_kind kind>
  PROSPECT_INLINE strip_at<R> fill(const tokens_at<R>& rows, int n) {
    const several<R> none = 0;
    strip_at<R> at{.policy = rows.policy,
                   .advantage = rows.advantage,
                   .probed = rows.policy,
                   .soon = rows.policy + rows.ahead};
    if (rows.has_old) {
      at.soon = rows.old + rows.ahead;
      at.log_ratio = at.probed = log_ratio;
      at.ratio = ratio;
      for_each_vector<R>(
          n, [&](int i) __attribute__((always_inline)) {
            const several<R> x = load_several(rows.policy + i) - load_several(rows.old + i);
            ask_for(rows.policy + rows.ahead + i);
            store_several(log_ratio + i, x);
            store_several(ratio + i, select(kept<kind>(rows, i), ratios(x), none));
          });
    }
    if (rows.has_reference) {
      at.log_reference_ratio = log_reference_ratio;
      at.k3 = k3;
      at.k3_slope = k3_slope;
      for_each_vector<R>(
          n, [&](int i) __attribute__((always_inline)) {
            const several<R> x = load_several(rows.policy + i) - load_several(rows.reference + i);
            const value_and_slope<several<R>> divergence = divergences(x);
            ask_for(rows.reference + rows.ahead + i);
            store_several(log_reference_ratio + i, x);
            store_several(k3 + i, select(kept<kind>(rows, i), divergence.value, none));
            store_several(k3_slope + i, divergence.slope);
          });
    }
    return at;
  }
};

}  // namespace PROSPECT_CPU_ISA
}  // namespace prospect::inline v2::cpu::detail
PROSPECT_STRICT_END
