// The kernels over one row of logits as a table: one source for every instruction set (lanes.hpp).
// Nothing here checks arguments or knows of batches. Sums are in row_sums.hpp, gradients in
// row_gradients.hpp, what both are made of in row_terms.hpp.
#pragma once

#include <prospect/cpu/detail/row_gradients.hpp>
#include <prospect/cpu/detail/row_sums.hpp>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cpu::detail {

/// The kernels for one storage type. The archive fills it with those of the instruction set it
/// finds, header-only users have those of the one they compile for.
template <storage S>
struct row_kernels {
  vocabulary_partial (*sum)(const S* x, std::int64_t count, std::int64_t target, bool statistics,
                            const logit_map& map);
  void (*gradient)(const S* x, S* out, std::int64_t count, std::int64_t target, double log_prob,
                   double lse, const prospect::detail::row_coefficients<compute_t<S>>& by,
                   const logit_map& map);
  /// The same two for a gradient that follows its sum at once, in place.
  vocabulary_partial (*sum_keeping)(S* x, std::int64_t count, std::int64_t target, bool statistics,
                                    const logit_map& map, kept_exponentials& kept);
  void (*gradient_of_kept)(S* x, std::int64_t count, std::int64_t target, double log_prob,
                           double lse, compute_t<S> a, compute_t<S> b, const logit_map& map,
                           const kept_exponentials& kept);
};

inline namespace PROSPECT_CPU_ISA {

/// Those of the instruction set this is compiled for.
template <storage S>
constexpr row_kernels<S> compiled_kernels() noexcept {
  return {.sum = sum_row<S>,
          .gradient = gradient_row<S>,
          .sum_keeping = sum_row_keeping<S>,
          .gradient_of_kept = gradient_of_kept_row<S>};
}

}  // namespace PROSPECT_CPU_ISA

}  // namespace prospect::inline v2::cpu::detail
PROSPECT_STRICT_END
