// Geometric-mean policy optimisation: clipped log-ratios, averaged before the exponential.
#pragma once

#include <prospect/losses/concepts.hpp>
#include <prospect/losses/parts/along.hpp>

#include <array>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2 {

/// GMPO (Zhao et al. 2025, arXiv:2507.20673, eq. 4): one loss for a sequence.
///
///   loss = -A exp(mean over the sequence of c),
///   c = min(x, epsilon_high) where A > 0, else max(x, -epsilon),  x = log pi - log pi_old
///
/// The bounds are of log-ratios. On a bound the gradient is whole, as it was in the original up to
/// PyTorch 2.13.
struct gmpo {
  double epsilon = 0.4;
  double epsilon_high = 0.4;

  static constexpr std::string_view name = "gmpo";
  static constexpr bool branch_free = true;
  static constexpr averaging average = averaging::sequence_means;
  static constexpr std::array<parameter<gmpo>, 2> parameters{
      {{"epsilon", &gmpo::epsilon}, {"epsilon_high", &gmpo::epsilon_high}}};

  PROSPECT_INLINE constexpr const char* problem() const {
    if (!detail::not_negative(epsilon)) return "epsilon must not be negative (0 to 1e30)";
    if (!detail::not_negative(epsilon_high)) {
      return "epsilon_high must not be negative (0 to 1e30)";
    }
    return nullptr;
  }

  PROSPECT_INLINE static constexpr bool sequence_level() { return true; }
  template <class T>
  PROSPECT_HD constexpr T contribution(const token<T>& t) const {
    using R = scalar_of_t<T>;
    const auto rises = t.advantage > R(0);
    const R unbounded = R(1e30);
    return clamp(t.log_ratio(), select(rises, -unbounded, R(-epsilon)),
                 select(rises, R(epsilon_high), unbounded));
  }

  template <class T>
  PROSPECT_HD constexpr T operator()(const token<T>& t) const {
    using R = scalar_of_t<T>;
    const R a = t.advantage;
    return along(t.mean(), [&](const R& x) {
      // A ratio that is no number any more is of no matter where nothing is gained.
      const R loss = select(a == R(0), R(0), -a * exp(x));
      return value_and_slope<R>{.value = loss, .slope = loss};
    });
  }
};

}  // namespace prospect::inline v2
PROSPECT_STRICT_END
