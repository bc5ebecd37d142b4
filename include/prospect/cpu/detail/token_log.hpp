// What is logged of the tokens of a block beside their losses, and whether all of it was finite.
#pragma once

#include <prospect/cpu/detail/token_strip.hpp>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cpu::detail {

/// What the tokens of a sequence add up to.
struct token_sum {
  enum { loss, advantages, ratio, clipped, kl, entropy, size };
};

inline namespace PROSPECT_CPU_ISA {

/// The sums of a sequence, while a block is added to them.
template <std::floating_point R>
class token_log {
 public:
  token_log(const tokens_at<R>& rows, const tally<token_sum::size>& before)
      : has_old_{rows.has_old},
        has_reference_{rows.has_reference},
        clip_{rows.clips ? R(1) : R(0)},
        sums_{before} {}

  /// Inputs that no sum shows.
  template <class... Values>
  PROSPECT_INLINE void look_at(Values... values) {
    probe_.look_at(values...);
  }
  /// Those of the tokens from i on. What is added up shows in its sum whether it was finite, and so
  /// does what it was made of.
  PROSPECT_INLINE void add(int which, int i, several<R> x) { sums_.add(which, i, x); }
  PROSPECT_INLINE void add(int which, int i, flag_of<several<R>> kept, several<R> x) {
    add(which, i, select(kept, x, several<R>(0)));
  }
  /// n tokens' losses, pi / pi_old where there is an old policy, and estimates k3 where there is a
  /// reference.
  PROSPECT_INLINE void add_strip(int n, const R* losses, const R* ratio, const R* k3) {
    for_each_vector<R>(
        n, [&](int i) __attribute__((always_inline)) {
          sums_.add_from(token_sum::loss, i, losses + i);
          if (has_old_) sums_.add_from(token_sum::ratio, i, ratio + i);
          if (has_reference_) sums_.add_from(token_sum::kl, i, k3 + i);
        });
  }
  /// What tokens have of their own where not all share it.
  PROSPECT_INLINE void add_options(const tokens_at<R>& rows, int i, flag_of<several<R>> kept) {
    const several<R> advantage = load_several(rows.advantage + i);
    look_at(advantage, load_several(rows.weight + i), load_several(rows.entropy + i));
    if (rows.has_advantages) add(token_sum::advantages, i, kept, advantage);
    if (rows.measured_entropy != nullptr) {
      add(token_sum::entropy, i, kept, load_several(rows.measured_entropy + i));
    }
  }
  /// Tokens that are led nowhere, though something was to be gained.
  PROSPECT_INLINE void count_clipped(flag_of<several<R>> led_nowhere, several<R> advantage,
                                     bool is_shared) {
    const several<R> none = 0;
    // One that is shared is not 0 where tokens can be clipped.
    const several<R> clipped = is_shared ? clip_ : select(advantage == none, none, clip_);
    clipped_ += select(led_nowhere, clipped, none);
  }
  /// Whether all of a block of n was finite. Larger ones that were not leave no trace: they are
  /// worked on again, block by block.
  PROSPECT_INLINE bool store_to(tally<token_sum::size>& after, int n) {
    sums_.add(token_sum::clipped, 0, clipped_);
    const bool finite = sums_.finite() && probe_.finite();
    if (finite || n <= block_size) sums_.store_to(after);
    return finite;
  }

 private:
  bool has_old_, has_reference_;
  several<R> clip_;  ///< what a token that was clipped counts as
  running_tally<token_sum::size> sums_;
  finite_probe<R> probe_;
  several<R> clipped_;
};

}  // namespace PROSPECT_CPU_ISA
}  // namespace prospect::inline v2::cpu::detail
PROSPECT_STRICT_END
