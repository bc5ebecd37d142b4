// Pairs named by indices: that each index names a sequence, and, where coefficients come back to a
// row of sequences, that none is named twice.
#pragma once

#include <prospect/cpu/checks.hpp>

#include <bitset>
#include <cstdint>
#include <string>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cpu::detail {
inline namespace PROSPECT_CPU_ISA {

inline void indices_below(std::string_view name, const index_row& indices, std::int64_t end) {
  for (std::int64_t i = 0; i < indices.size(); ++i) {
    if (indices[i] >= 0 && indices[i] < end) continue;
    reject(name, "names sequence " + std::to_string(indices[i]) + " at " + std::to_string(i) +
                     ", of " + std::to_string(end));
  }
}

/// Refuses a sequence that is named twice. Sequences are marked a window at a time, so that marks
/// need no memory of their own.
inline void named_once(const prospect::detail::pair_indices& which, std::int64_t sequences) {
  constexpr std::int64_t window = std::int64_t{1} << 17;
  std::bitset<window> marked;
  for (std::int64_t first = 0; first < sequences; first += window) {
    if (first > 0) marked.reset();
    const auto mark = [&](std::string_view name, const index_row& indices) {
      for (std::int64_t i = 0; i < indices.size(); ++i) {
        const std::int64_t at = indices[i] - first;
        if (at < 0 || at >= window) continue;
        if (marked[static_cast<std::size_t>(at)]) {
          reject(name, "names sequence " + std::to_string(indices[i]) + " again at " +
                           std::to_string(i) +
                           ": d_policy has one place for it (ask for coefficients per pair)");
        }
        marked.set(static_cast<std::size_t>(at));
      }
    };
    mark("chosen", which.chosen);
    mark("rejected", which.rejected);
    mark("third", which.third);
  }
}

inline void pairs_among(const prospect::detail::pair_indices& which, std::int64_t sequences) {
  indices_below("chosen", which.chosen, sequences);
  indices_below("rejected", which.rejected, sequences);
  indices_below("third", which.third, sequences);
  if (!which.d_policy.empty()) named_once(which, sequences);
}

template <storage S>
void set_to_zero(strided_span<S> row) {
  for (std::int64_t i = 0; i < row.size(); ++i) row[i] = S{};
}
inline void set_to_zero(const any_row& row) {
  switch (row.type()) {
    case dtype::f64:
      return set_to_zero(row.as<double>());
    case dtype::f16:
      return set_to_zero(row.as<float16>());
    case dtype::bf16:
      return set_to_zero(row.as<bfloat16>());
    default:
      return set_to_zero(row.as<float>());
  }
}

}  // namespace PROSPECT_CPU_ISA
}  // namespace prospect::inline v2::cpu::detail
PROSPECT_STRICT_END
