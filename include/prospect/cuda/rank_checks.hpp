// Why sums over ranks make no sense, as far as the host can see. The launchers answer
// cudaErrorInvalidValue.
#pragma once

#include <prospect/batch.hpp>
#include <prospect/core/matrix_view.hpp>
#include <prospect/cuda/token_checks.hpp>

#include <concepts>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cuda {

/// Why `sum_over_ranks` would refuse these arguments, or nullptr.
template <class T>
  requires(std::same_as<T, double> || std::same_as<T, sum_count>)
static const char* problem(const matrix_view<const T>& ranks, const strided_span<T>& sums) {
  if (const char* why = detail::matrix_problem<"ranks">(ranks)) return why;
  if (ranks.rows == 0) return "ranks are none";
  if (ranks.columns > std::int64_t{1} << 30) return "ranks have more than 2^30 columns";
  if (sums.size() != ranks.columns) return "sums must have an element for each column of ranks";
  return detail::output_problem<"sums">(sums, ranks.columns);
}

}  // namespace prospect::inline v2::cuda
PROSPECT_STRICT_END
