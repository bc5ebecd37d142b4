// What is worked out of tokens beforehand, and who must not get it.

#include <prospect/cpu/token_losses.hpp>
#include <prospect/losses/losses.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "catch.hpp"
#include "closeness.hpp"
#include "cpu/token_loss_cases.hpp"

namespace {

/// Another token than the one that is given, whose exponentials nobody has worked out.
template <bool takes_several>
struct halved_loss {
  static constexpr bool branch_free = takes_several;
  static constexpr auto average = prospect::averaging::sequence_means;

  template <class T>
  T operator()(const prospect::token<T>& t) const {
    prospect::token<T> half = t;
    half.ratio = 0.5 * t.ratio;
    half.reference_ratio = 0.5 * t.reference_ratio;
    return prospect::grpo{.beta = 0.1}(half);
  }
};

}  // namespace

TEST_CASE("a loss may ask another of a token that it has changed", "[tokens]") {
  testing::token_loss_case c;
  c.rows = 4;
  c.begins = {0, 2};
  c.ends = {2, 4};
  c.policy = c.old = c.reference = c.loss = c.d_policy = {prospect::dtype::f32, 4};
  c.advantage = {prospect::dtype::f32, 2};
  const double policy[] = {-1, -1.1, -2, -3}, old[] = {-1.2, -1, -2.5, -2.8};
  const double reference[] = {-1.1, -1.5, -2, -3.3};
  for (std::int64_t t = 0; t < 4; ++t) {
    c.policy.put(t, policy[t]);
    c.old.put(t, old[t]);
    c.reference.put(t, reference[t]);
  }
  c.advantage.put(0, 1);
  c.advantage.put(1, -1);
  const auto check = [&](const auto& loss) {
    prospect::cpu::evaluate(loss, c.in(), c.out());
    for (std::size_t t = 0; t < 4; ++t) {
      const double r = std::exp((policy[t] - old[t]) / 2), x = (policy[t] - reference[t]) / 2;
      const double k3 = std::exp(-x) - 1 + x;
      const double want = (t < 2 ? -std::min(r, 1.2) : std::max(r, 0.8)) + 0.1 * k3;
      CHECK(testing::near(c.loss[static_cast<std::int64_t>(t)], want, 1e-6L, 1e-6L));
    }
  };
  check(halved_loss<true>{});
  check(halved_loss<false>{});
}
