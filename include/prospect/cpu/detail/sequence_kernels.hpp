// The loops of phase 2, as a table for each loss: the archive fills it once for every instruction
// set; arguments and batches are the business of sequences.hpp.
#pragma once

#include <prospect/cpu/detail/paired_loops.hpp>
#include <prospect/cpu/detail/unpaired_loops.hpp>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cpu::detail {

/// The loops for one paired loss and type of arithmetic. The archive fills the table with those of
/// the instruction set it finds, header-only users have those of the one they compile for.
template <std::floating_point R, class Loss>
struct paired_kernels {
  tally<paired_sum::size> (*results)(const Loss& loss, const paired_batch<>& in,
                                     const paired_outputs<>& out, const pair_indices& which,
                                     double factor, const token_slope& next, range piece);
};

/// The same for an unpaired loss.
template <std::floating_point R, class Loss>
struct unpaired_kernels {
  tally<unpaired_sum::size> (*results)(const Loss& loss, const unpaired_batch<>& in,
                                       const unpaired_outputs<>& out, double factor,
                                       const class_terms& desirable, const class_terms& undesirable,
                                       range piece);
  /// Log-ratios by class.
  tally<class_sum::size> (*ratios)(const unpaired_batch<>& in, range piece);
  /// dL/dz by class, times weights.
  tally<class_sum::size> (*slopes)(const Loss& loss, const unpaired_batch<>& in, double z_desirable,
                                   double z_undesirable, range piece);
};

inline namespace PROSPECT_CPU_ISA {

/// Mismatched rows, for `note_nonfinite`.
template <std::floating_point R>
struct mismatched_at {
  completions_at<R> rows;

  bool counted(std::int64_t i) const { return rows.tokens[i] > 0; }
  bool finite(std::int64_t i) const { return rows.finite(i); }
};

template <std::floating_point R>
[[gnu::flatten]] tally<mismatched_sum::size> mismatched_ratios(
    const const_any_row& policy, const const_any_row& reference,
    strided_span<const std::int32_t> tokens, range piece) {
  const several<R> none = 0;
  const several<R> one = 1;
  completion_rows<R> answer{policy, reference, tokens};
  tally<mismatched_sum::size> seen;
  for_each_block(piece, [&](range at) {
    const completions_at<R> rows = answer.read(at);
    running_tally<mismatched_sum::size> here{seen};
    several<R> left_out;
    const int n = whole_vectors(at);
    for (int i = 0; i < n; i += lanes<R>) {
      const auto counted = rows.counted(i);
      const several<R> ratio = rows.several_of(i, counted).ratio;
      const auto finite = is_finite(ratio);
      here.add(mismatched_sum::ratio, i, select(finite, ratio, none));
      here.add(mismatched_sum::finite, i, select(counted && finite, one, none));
      left_out += select(finite, none, one);
    }
    here.store_to(seen);
    if (fold<R>(left_out.lane, [](auto a, auto b) { return a + b; }) > 0) {
      note_nonfinite(seen, at, mismatched_at<R>{rows});
    }
  });
  return seen;
}

/// Those of the instruction set this is compiled for.
template <std::floating_point R, class Loss>
constexpr paired_kernels<R, Loss> compiled_paired_kernels() noexcept {
  return {.results = paired_results_of<R, Loss>};
}
template <std::floating_point R, class Loss>
constexpr unpaired_kernels<R, Loss> compiled_unpaired_kernels() noexcept {
  return {.results = unpaired_results_of<R, Loss>,
          .ratios = class_ratios<R>,
          .slopes = class_slopes<R, Loss>};
}

}  // namespace PROSPECT_CPU_ISA
}  // namespace prospect::inline v2::cpu::detail
PROSPECT_STRICT_END
