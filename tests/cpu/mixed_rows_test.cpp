// Rows of one batch that differ in storage type: arithmetic is that of the widest policy or
// reference row, and every result is rounded once to what it is stored as.

#include <prospect/cpu/sequences.hpp>
#include <prospect/losses/losses.hpp>

#include <cmath>
#include <cstdint>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "catch.hpp"
#include "closeness.hpp"
#include "cpu/cases.hpp"
#include "random.hpp"

namespace {

using prospect::bfloat16;
using prospect::const_any_row;
using prospect::float16;
using prospect::storage;
using prospect::cpu::evaluate;
using testing::laid_out_row;
using testing::random_source;
using testing::same_bits;
using testing::same_metrics;

constexpr std::int64_t batch_size = 300;  // a full block, and one that is not

template <storage S>
laid_out_row<S> row_of(random_source& random, double center, double spread) {
  laid_out_row<S> row{batch_size, testing::any_placement(random)};
  for (std::int64_t i = 0; i < batch_size; ++i) {
    row[i] = testing::stored<S>(center + random.normal(spread));
  }
  return row;
}

/// The same numbers in the type of arithmetic.
template <class R, class S>
std::vector<R> widened(laid_out_row<S>& row) {
  std::vector<R> wide;
  for (std::int64_t i = 0; i < batch_size; ++i)
    wide.push_back(static_cast<R>(prospect::load(row[i])));
  return wide;
}

/// What was written is `want`, rounded once.
template <class O, class R>
bool is_rounded(laid_out_row<O>& got, const std::vector<R>& want) {
  bool same = got.only_elements_written();
  for (std::int64_t i = 0; i < batch_size; ++i) {
    same = same &&
           same_bits(got[i], prospect::detail::stored_as<O>(want[static_cast<std::size_t>(i)]));
  }
  return same;
}

using storages = std::tuple<float, double, float16, bfloat16>;

/// visit(P{}, F{}, O{}) for every pair of types of policy and reference, with results of each type
/// beside each of them.
template <class Visit>
void for_each_mixture(const Visit& visit) {
  const auto one = [&]<std::size_t k>(std::integral_constant<std::size_t, k>) {
    visit(std::tuple_element_t<k / 4, storages>{}, std::tuple_element_t<k % 4, storages>{},
          std::tuple_element_t<(k / 4 + k) % 4, storages>{});
  };
  [&]<std::size_t... k>(std::index_sequence<k...>) {
    (one(std::integral_constant<std::size_t, k>{}), ...);
  }(std::make_index_sequence<16>{});
}

template <class P, class F>
using arithmetic_of =
    std::conditional_t<std::is_same_v<P, double> || std::is_same_v<F, double>, double, float>;

}  // namespace

TEST_CASE("pairs of any mixture are those of the widened rows", "[mixed]") {
  random_source random{401};
  CAPTURE(random.seed());
  const prospect::dpo loss{.beta = 0.3, .label_smoothing = 0.1};
  for_each_mixture([&]<class P, class F, class O>(P, F, O) {
    using R = arithmetic_of<P, F>;
    CAPTURE(sizeof(P), sizeof(F), sizeof(O));
    auto chosen = row_of<P>(random, -30, 4), rejected = row_of<P>(random, -31, 4);
    auto reference_chosen = row_of<F>(random, -30, 4);
    auto reference_rejected = row_of<F>(random, -31, 4);
    auto weight = row_of<O>(random, 1, 0.5);
    auto margin = row_of<bfloat16>(random, 0, 2);
    laid_out_row<O> got{batch_size, {.stride = 2}}, d_chosen{batch_size},
        d_rejected{batch_size, {.stride = -1}}, reward{batch_size}, other_reward{batch_size};
    const auto metrics = evaluate(loss,
                                  {.policy_chosen = chosen.view(),
                                   .policy_rejected = rejected.view(),
                                   .reference_chosen = reference_chosen.view(),
                                   .reference_rejected = reference_rejected.view(),
                                   .weight = weight.view(),
                                   .margin = margin.view()},
                                  {.loss = got.view(),
                                   .d_policy_chosen = d_chosen.view(),
                                   .d_policy_rejected = d_rejected.view(),
                                   .reward_chosen = reward.view(),
                                   .reward_rejected = other_reward.view()});
    const auto p_w = widened<R>(chosen), p_l = widened<R>(rejected);
    const auto f_w = widened<R>(reference_chosen), f_l = widened<R>(reference_rejected);
    const auto w = widened<R>(weight), m = widened<R>(margin);
    std::vector<R> want(batch_size), want_chosen(batch_size), want_rejected(batch_size),
        r_chosen(batch_size), r_rejected(batch_size);
    const auto wide = evaluate<R>(loss,
                                  {.policy_chosen = p_w,
                                   .policy_rejected = p_l,
                                   .reference_chosen = f_w,
                                   .reference_rejected = f_l,
                                   .weight = w,
                                   .margin = m},
                                  {.loss = want,
                                   .d_policy_chosen = want_chosen,
                                   .d_policy_rejected = want_rejected,
                                   .reward_chosen = r_chosen,
                                   .reward_rejected = r_rejected});
    CHECK(same_metrics(metrics, wide));
    CHECK(is_rounded(got, want));
    CHECK(is_rounded(d_chosen, want_chosen));
    CHECK(is_rounded(d_rejected, want_rejected));
    CHECK(is_rounded(reward, r_chosen));
    CHECK(is_rounded(other_reward, r_rejected));
  });
}

TEST_CASE("completions of any mixture are those of the widened rows", "[mixed]") {
  random_source random{402};
  CAPTURE(random.seed());
  const prospect::kto loss{.beta = 0.3, .undesirable_weight = 2};
  std::vector<std::uint8_t> up(batch_size);
  for (auto& thumb : up) thumb = random.chance(0.5) ? 1 : 0;
  std::vector<std::int32_t> tokens(batch_size);
  for (auto& count : tokens) count = testing::token_count(random, true);
  for_each_mixture([&]<class P, class F, class O>(P, F, O) {
    using R = arithmetic_of<P, F>;
    CAPTURE(sizeof(P), sizeof(F), sizeof(O));
    auto policy = row_of<P>(random, -30, 4);
    auto reference = row_of<F>(random, -30, 4);
    auto weight = row_of<O>(random, 1, 0.5);
    const auto p = widened<R>(policy), f = widened<R>(reference), w = widened<R>(weight);
    const auto check = [&](const auto& point) {
      laid_out_row<O> got{batch_size}, d{batch_size, {.stride = 3}}, reward{batch_size};
      std::vector<R> want(batch_size), want_d(batch_size), want_reward(batch_size);
      const auto metrics =
          evaluate(loss,
                   {.policy = policy.view(),
                    .reference = reference.view(),
                    .desirable = up,
                    .tokens = tokens,
                    .weight = weight.view()},
                   point, {.loss = got.view(), .d_policy = d.view(), .reward = reward.view()});
      const auto wide = evaluate<R>(
          loss, {.policy = p, .reference = f, .desirable = up, .tokens = tokens, .weight = w},
          point, {.loss = want, .d_policy = want_d, .reward = want_reward});
      CHECK(same_metrics(metrics, wide));
      CHECK(is_rounded(got, want));
      CHECK(is_rounded(d, want_d));
      CHECK(is_rounded(reward, want_reward));
    };
    check(prospect::constant_point(0.7));
    check(prospect::cross_class{});
    const auto seen = prospect::cpu::mismatched_kl(policy.view(), reference.view(), tokens);
    const auto want = prospect::cpu::mismatched_kl<R>(p, f, tokens);
    CHECK(seen.sum == want.sum);
    CHECK(seen.count == want.count);
    const auto points = prospect::cpu::cross_class_points(
        {.policy = policy.view(), .reference = reference.view(), .desirable = up});
    const auto typed =
        prospect::cpu::cross_class_points<R>({.policy = p, .reference = f, .desirable = up});
    CHECK(points.desirable.raw == typed.desirable.raw);
    CHECK(points.undesirable.raw == typed.undesirable.raw);
  });
}

TEST_CASE("the log-ratio is formed in fp64 if either side of it is", "[mixed]") {
  // fp32 has steps of 6e-5 here: the difference would be lost in them.
  const double reference = -1000.123456789;
  const float policy = -1000.1F;
  const std::vector<std::uint8_t> up{1};
  std::vector<double> reward(1);
  evaluate(prospect::kto{.beta = 1},
           {.policy = std::vector<float>{policy},
            .reference = std::vector<double>{reference},
            .desirable = up},
           prospect::zero_point(), {.reward = reward});
  CHECK(reward[0] == static_cast<double>(policy) - reference);
  evaluate(prospect::kto{.beta = 1},
           {.policy = std::vector<double>{reference},
            .reference = std::vector<float>{policy},
            .desirable = up},
           prospect::zero_point(), {.reward = reward});
  CHECK(reward[0] == reference - static_cast<double>(policy));
}

TEST_CASE("what a call is given may be made in the call", "[mixed]") {
  std::vector<double> d(2), e(2);
  const auto metrics = evaluate(prospect::dpo{},
                                {.policy_chosen = std::vector<float>{-10, -20},
                                 .policy_rejected = std::vector<double>{-11, -18},
                                 .reference_chosen = std::vector<float>{-10, -20},
                                 .reference_rejected = std::vector<float>{-11, -18}},
                                {.d_policy_chosen = d, .d_policy_rejected = e});
  CHECK(testing::near(metrics.total, std::log(2.0L), 1e-15L));
  CHECK(d[0] == -0.025);
  CHECK(e[1] == 0.025);
  // The same, by pointer.
  const float chosen[] = {-10, -20};
  const float rejected[] = {-11, -18};
  const auto again = evaluate(prospect::dpo{},
                              {.policy_chosen = {chosen, 2},
                               .policy_rejected = {&rejected[1], 2, -1},
                               .reference_chosen = chosen,
                               .reference_rejected = {&rejected[1], 2, -1}},
                              {});
  CHECK(testing::near(again.total, std::log(2.0L), 1e-7L));
  CHECK(again.logps_rejected.sum == -29);
}

TEST_CASE("a result too large for its row's type is counted, whatever the others are", "[mixed]") {
  const std::vector<double> chosen{-1, 0, -1}, rejected{-1, -1000, -1}, reference(3, 0.0);
  const auto count = [&]<class O>(O) {
    std::vector<O> loss(3);
    std::vector<double> d(3);
    const auto metrics = evaluate(prospect::ipo_sum{},
                                  {.policy_chosen = chosen,
                                   .policy_rejected = rejected,
                                   .reference_chosen = reference,
                                   .reference_rejected = reference},
                                  {.loss = loss, .d_policy_chosen = d});
    CHECK(metrics.first_nonfinite == (metrics.nonfinite.sum > 0 ? 1 : -1));
    CHECK(std::isfinite(metrics.total));
    return metrics.nonfinite.sum;
  };
  CHECK(count(float16{}) == 1);  // 995^2 is beyond 65504
  CHECK(count(bfloat16{}) == 0);
  CHECK(count(float{}) == 0);
  CHECK(count(double{}) == 0);
}
