// Soft adaptive policy optimisation: a sigmoid in place of the clip.
#pragma once

#include <prospect/losses/concepts.hpp>
#include <prospect/losses/parts/along.hpp>

#include <array>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2 {

/// SAPO (Qwen 2025, arXiv:2511.20347, eq. 6): each sequence's mean over its tokens.
///
///   loss = -A (4 / tau) sigmoid(tau (r - 1)),  r = pi / pi_old,
///   tau = temperature_pos where A > 0, else temperature_neg
struct sapo {
  double temperature_pos = 1.0;
  double temperature_neg = 1.05;

  static constexpr std::string_view name = "sapo";
  static constexpr bool branch_free = true;
  static constexpr averaging average = averaging::sequence_means;
  static constexpr std::array<parameter<sapo>, 2> parameters{
      {{"temperature_pos", &sapo::temperature_pos}, {"temperature_neg", &sapo::temperature_neg}}};

  PROSPECT_INLINE constexpr const char* problem() const {
    if (!detail::positive(temperature_pos))
      return "temperature_pos must be positive (1e-30 to 1e30)";
    if (!detail::positive(temperature_neg))
      return "temperature_neg must be positive (1e-30 to 1e30)";
    return nullptr;
  }

  template <class T, class E = token_exponentials>
  PROSPECT_HD constexpr T operator()(const token<T>& t, const E& exponentials = {}) const {
    using R = scalar_of_t<T>;
    const R a = t.advantage;
    const R tau = select(a > R(0), R(temperature_pos), R(temperature_neg));
    return along(t.log_ratio(), [&](const R& x) {
      const R r = exponentials.ratio(x);
      const R y = tau * expm1(x);
      const R slope = sigmoid_slope(y);
      // Far out the slope is 0, whatever the ratio has become.
      return value_and_slope<R>{.value = detail::precise::divide(R(-4) * a, tau) * sigmoid(y),
                                .slope = select(slope == R(0), R(0), R(-4) * a * r * slope)};
    });
  }
};

}  // namespace prospect::inline v2
PROSPECT_STRICT_END
