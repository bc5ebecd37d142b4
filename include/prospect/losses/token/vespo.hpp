// Sequence weights without a clip, from a variational bound.
#pragma once

#include <prospect/losses/concepts.hpp>

#include <array>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2 {

/// VESPO (arXiv:2602.10693), averaged over tokens.
///
///   loss = -sg(phi) A log pi,  phi = exp(lambda + k log w - lambda w),
///   log w = sum over the sequence of log pi - log pi_old, held inside [log 1e-8, 20], and each
///   token's inside [-20, 20];  k and lambda by the sign of A
///
/// phi is 1 on policy.
struct vespo {
  double k_pos = 2;
  double lambda_pos = 3;
  double k_neg = 3;       ///< where A < 0
  double lambda_neg = 2;  ///< likewise

  static constexpr std::string_view name = "vespo";
  static constexpr bool branch_free = true;
  static constexpr bool detached_sum = true;
  static constexpr averaging average = averaging::tokens;
  static constexpr std::array<parameter<vespo>, 4> parameters{{{"k_pos", &vespo::k_pos},
                                                               {"lambda_pos", &vespo::lambda_pos},
                                                               {"k_neg", &vespo::k_neg},
                                                               {"lambda_neg", &vespo::lambda_neg}}};

  PROSPECT_INLINE constexpr const char* problem() const {
    if (!detail::not_negative(k_pos)) return "k_pos must not be negative (0 to 1e30)";
    if (!detail::not_negative(lambda_pos)) return "lambda_pos must not be negative (0 to 1e30)";
    if (!detail::not_negative(k_neg)) return "k_neg must not be negative (0 to 1e30)";
    if (!detail::not_negative(lambda_neg)) return "lambda_neg must not be negative (0 to 1e30)";
    return nullptr;
  }

  template <class T>
  PROSPECT_HD constexpr T contribution(const token<T>& t) const {
    return clamp(t.log_ratio(), -20, 20);
  }

  template <class T>
  PROSPECT_HD constexpr T operator()(const token<T>& t) const {
    using R = scalar_of_t<T>;
    const auto falls = t.advantage < R(0);
    const R k = select(falls, R(k_neg), R(k_pos));
    const R lambda = select(falls, R(lambda_neg), R(lambda_pos));
    const R log_w = clamp(value_of(t.sum), R(-18.420680743952367), R(20));
    // lambda (1 - w), without the digits that 1 - w loses on policy.
    const R phi = exp(k * log_w - lambda * expm1(log_w));
    return -(phi * t.advantage) * t.policy;
  }
};

}  // namespace prospect::inline v2
PROSPECT_STRICT_END
