// What the loops of phase 2 add up, and where a block of their results is.
#pragma once

#include <prospect/cpu/detail/samples.hpp>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cpu::detail {

/// The sums of a paired batch.
struct paired_sum {
  enum { loss, chosen, rejected, accurate, logp_chosen, logp_rejected, size };
};
/// The sums of an unpaired batch.
struct unpaired_sum {
  enum { desirable, loss, chosen, rejected, logp_chosen, logp_rejected, size };
};
/// Sums by class over the rows that take part in a class's mean, and their numbers.
struct class_sum {
  enum { n_desirable, n_undesirable, desirable, undesirable, size };
};

/// The sum of the mismatched log-ratios that are finite, and their number.
struct mismatched_sum {
  enum { ratio, finite, size };
};

/// What one class of an unpaired batch is measured against, and what every row of that class adds
/// to its own coefficient because another class's reference point depends on it.
struct class_terms {
  double z = 0;
  double attached = 0;
};

inline namespace PROSPECT_CPU_ISA {

/// Where a block of results goes, and from which magnitude on they are infinite once they are
/// there.
template <std::floating_point R>
struct results_at {
  R* row = nullptr;
  R limit = 0;
  bool past_caches = false;  ///< whether to be written past them

  bool finite(std::int64_t i) const {
    using prospect::detail::magnitude_bits;
    return magnitude_bits(row[i]) < magnitude_bits(limit);
  }
};

/// Notes the counted rows that hold what is no finite number.
template <int N, class Block>
void note_nonfinite(tally<N>& piece, range at, const Block& block) {
  for (std::int64_t i = 0; i < at.count; ++i) {
    if (!block.counted(i) || block.finite(i)) continue;
    ++piece.nonfinite;
    if (piece.first_nonfinite < 0) piece.first_nonfinite = at.first + i;
  }
}

}  // namespace PROSPECT_CPU_ISA
}  // namespace prospect::inline v2::cpu::detail
PROSPECT_STRICT_END
