// The golden figures that concern the losses of this library, in fp64 and fp32. SimpleKTO's, which
// couple a batch, are replayed in cpu/sequences_test.cpp.

#include <prospect/losses/losses.hpp>

#include <cstddef>

#include "catch.hpp"
#include "closeness.hpp"
#include "oracle/golden.hpp"

namespace {

using testing::near;

template <class R>
prospect::completion<R> completion_of(double policy, double reference, int tokens) {
  return {.policy = static_cast<R>(policy),
          .ratio = static_cast<R>(policy - reference),
          .tokens = static_cast<R>(tokens)};
}

template <class R>
prospect::pair<R> pair_of(const oracle::golden_pair& p) {
  return {.chosen = completion_of<R>(p.policy_chosen, p.reference_chosen, p.chosen_tokens),
          .rejected = completion_of<R>(p.policy_rejected, p.reference_rejected, p.rejected_tokens)};
}

template <class R, prospect::paired_loss<R> L>
prospect::paired_value<R> replay(const L& loss, const oracle::golden_pair& p, double) {
  return prospect::differentiate(loss, pair_of<R>(p));
}

/// One desirable and one undesirable completion, losses added.
template <class R, prospect::unpaired_loss<R> L>
prospect::paired_value<R> replay(const L& loss, const oracle::golden_pair& p, double z) {
  const prospect::pair<R> both = pair_of<R>(p);
  const auto up = prospect::differentiate(
      loss,
      prospect::unpaired<R>{.answer = both.chosen, .z = static_cast<R>(z), .desirable = true});
  const auto down = prospect::differentiate(
      loss,
      prospect::unpaired<R>{.answer = both.rejected, .z = static_cast<R>(z), .desirable = false});
  return {.loss = up.loss + down.loss, .d_chosen = up.d_policy, .d_rejected = down.d_policy};
}

template <class R, class L>
void check(const L& loss, const oracle::golden_rows& rows, double z, long double relative) {
  // Below this fp32 has no digits left to compare: e^-96 is subnormal.
  const long double smallest = std::numeric_limits<R>::denorm_min();
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const auto got = replay<R>(loss, oracle::golden_pairs[i], z);
    CAPTURE(i, got.loss, got.d_chosen, got.d_rejected);
    CHECK(near(got.loss, rows[i].loss, relative, smallest));
    CHECK(near(got.d_chosen, rows[i].d_chosen, relative, smallest));
    CHECK(near(got.d_rejected, rows[i].d_rejected, relative, smallest));
  }
}

template <class L>
void check(const L& loss, const oracle::golden_rows& rows, double z = 0) {
  check<double>(loss, rows, z, 1e-12L);
  check<float>(loss, rows, z, 1e-5L);
}

}  // namespace

TEST_CASE("golden figures of the paired losses", "[losses][golden]") {
  SECTION("dpo") { check(prospect::dpo{.beta = 0.1}, oracle::golden_dpo); }
  SECTION("cdpo") {
    check(prospect::dpo{.beta = 0.1, .label_smoothing = 0.2}, oracle::golden_cdpo);
  }
  SECTION("robust") {
    check(prospect::robust_dpo{.beta = 0.1, .label_smoothing = 0.1}, oracle::golden_robust_dpo);
  }
  SECTION("hinge") { check(prospect::hinge{.beta = 0.1}, oracle::golden_hinge); }
  SECTION("ipo") { check(prospect::ipo{.tau = 0.1}, oracle::golden_ipo); }
  SECTION("ipo_sum") { check(prospect::ipo_sum{.tau = 0.1}, oracle::golden_ipo_sum); }
}

TEST_CASE("golden figures of the unpaired losses", "[losses][golden]") {
  const prospect::kto kto{.beta = 0.1, .desirable_weight = 1.5, .undesirable_weight = 0.75};
  check(kto, oracle::golden_kto_at_0, 0);
  check(kto, oracle::golden_kto_at_1_5, 1.5);
  const prospect::kto_zero zero{.beta = 0.1, .desirable_weight = 1.5, .undesirable_weight = 0.75};
  check(zero, oracle::golden_kto_at_0, 1e9);  // whatever z is given
}
