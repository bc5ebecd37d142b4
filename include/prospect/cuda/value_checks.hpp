// Why a call on value estimates makes no sense, as far as the host can see.
#pragma once

#include <prospect/cuda/checks.hpp>
#include <prospect/cuda/token_checks.hpp>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cuda {

/// Why `evaluate` would refuse these arguments, or nullptr.
template <class Loss>
static const char* problem(const Loss& loss, const value_batch& in, const value_outputs& out,
                           const denominator& by) {
  static_assert(value_loss<Loss>,
                "prospect: a batch of values needs a value loss: a trivially copyable type with "
                "`template <class T> PROSPECT_HD T operator()(const prospect::value_estimate<T>&) "
                "const`");
  const std::int64_t n = in.value.size();
  return detail::first_of(
      detail::loss_problem(loss, by), detail::input_problem<"value">(in.value, n),
      detail::input_problem<"old_value">(in.old_value, n),
      detail::input_problem<"returns">(in.returns, n), detail::mask_problem(in.mask, n),
      detail::output_problem<"loss">(out.loss, n),
      detail::output_problem<"d_value">(out.d_value, n));
}

}  // namespace prospect::inline v2::cuda
PROSPECT_STRICT_END
