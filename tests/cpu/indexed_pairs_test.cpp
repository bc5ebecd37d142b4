// Pairs that are named by indices into one row of sequences: the results of the pairs as if they
// had been gathered, coefficients back in the row of sequences, and indices that are refused.

#include <prospect/cpu/sequences.hpp>
#include <prospect/losses/losses.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numeric>
#include <vector>

#include "catch.hpp"
#include "cpu/cases.hpp"
#include "random.hpp"
#include "refusals.hpp"

namespace {

using prospect::index_row;
using prospect::indexed_outputs;
using prospect::indexed_pairs;
using prospect::normaliser;
using prospect::cpu::evaluate;
using testing::laid_out_row;
using testing::placement;
using testing::random_source;
using testing::refuses;
using testing::same_bits;
using testing::same_metrics;
using testing::stored;

/// n sequences, and pairs of some of them in any order.
template <class S>
struct sequences {
  std::int64_t n;
  laid_out_row<S> policy, reference;
  laid_out_row<std::int32_t> tokens;
  std::vector<std::int32_t> order;

  sequences(random_source& random, std::int64_t size)
      : n{size},
        policy{size, testing::any_placement(random)},
        reference{size, testing::any_placement(random)},
        tokens{size, testing::any_placement(random)},
        order(static_cast<std::size_t>(size)) {
    for (std::int64_t i = 0; i < n; ++i) {
      policy[i] = stored<S>(random.normal(8) - 30);
      reference[i] = stored<S>(random.normal(8) - 30);
      tokens[i] = testing::token_count(random, true);
    }
    std::iota(order.begin(), order.end(), 0);
    for (std::size_t i = order.size(); i > 1; --i) {
      std::swap(
          order[i - 1],
          order[static_cast<std::size_t>(random.integer(0, static_cast<std::int64_t>(i) - 1))]);
    }
  }
};

template <class T>
laid_out_row<T> gathered(laid_out_row<T>& row, const std::vector<std::int64_t>& indices) {
  laid_out_row<T> result{static_cast<std::int64_t>(indices.size())};
  for (std::size_t i = 0; i < indices.size(); ++i) {
    result[static_cast<std::int64_t>(i)] = row[indices[i]];
  }
  return result;
}

}  // namespace

TEMPLATE_TEST_CASE("pairs by index are the pairs they name", "[indexed]", float, double,
                   prospect::float16) {
  using S = TestType;
  random_source random{421};
  CAPTURE(random.seed());
  for (const std::int64_t n : {2, 3, 61, 1200}) {
    sequences<S> all{random, n};
    const std::int64_t pairs = n / 2 - (n > 3 ? 3 : 0);  // some sequences are in none
    // One row of indices of either width, the other one reversed.
    const std::vector<std::int32_t> chosen(all.order.begin(), all.order.begin() + pairs);
    std::vector<std::int64_t> rejected(all.order.begin() + pairs, all.order.begin() + 2 * pairs);
    const std::vector<std::int64_t> wide(chosen.begin(), chosen.end());
    const index_row backwards{rejected.data() + pairs - 1, pairs, -1};
    std::vector<std::int64_t> in_order = rejected;
    std::reverse(in_order.begin(), in_order.end());

    const std::vector<double> weight = random.normals(pairs, 1), margin = random.normals(pairs, 1);
    const auto size = static_cast<std::size_t>(pairs);
    std::vector<S> loss(size), d_w(size), d_l(size), r_w(size), r_l(size);
    laid_out_row<S> d{n, {.stride = 2}};
    const auto metrics = evaluate(prospect::ipo{},
                                  {.policy = all.policy.view(),
                                   .reference = all.reference.view(),
                                   .tokens = all.tokens.view(),
                                   .chosen = chosen,
                                   .rejected = backwards,
                                   .weight = weight,
                                   .margin = margin},
                                  {.loss = loss,
                                   .d_policy = d.view(),
                                   .d_policy_chosen = d_w,
                                   .d_policy_rejected = d_l,
                                   .reward_chosen = r_w,
                                   .reward_rejected = r_l});

    auto p_w = gathered(all.policy, wide), p_l = gathered(all.policy, in_order);
    auto f_w = gathered(all.reference, wide), f_l = gathered(all.reference, in_order);
    auto t_w = gathered(all.tokens, wide), t_l = gathered(all.tokens, in_order);
    std::vector<S> want(size), want_w(size), want_l(size), want_r_w(size), want_r_l(size);
    const auto wanted = evaluate(prospect::ipo{},
                                 {.policy_chosen = p_w.view(),
                                  .policy_rejected = p_l.view(),
                                  .reference_chosen = f_w.view(),
                                  .reference_rejected = f_l.view(),
                                  .chosen_tokens = t_w.view(),
                                  .rejected_tokens = t_l.view(),
                                  .weight = weight,
                                  .margin = margin},
                                 {.loss = want,
                                  .d_policy_chosen = want_w,
                                  .d_policy_rejected = want_l,
                                  .reward_chosen = want_r_w,
                                  .reward_rejected = want_r_l});
    CHECK(same_metrics(metrics, wanted));
    CHECK(same_bits(loss, want));
    CHECK(same_bits(d_w, want_w));
    CHECK(same_bits(d_l, want_l));
    CHECK(same_bits(r_w, want_r_w));
    CHECK(same_bits(r_l, want_r_l));
    // Back where the sequences are; nothing where no pair is.
    std::vector<S> expected(static_cast<std::size_t>(n), stored<S>(0));
    for (std::size_t i = 0; i < size; ++i) {
      expected[static_cast<std::size_t>(wide[i])] = want_w[i];
      expected[static_cast<std::size_t>(in_order[i])] = want_l[i];
    }
    CHECK(same_bits(d.elements(), expected));
    CHECK(d.only_elements_written());
  }
}

TEST_CASE("coefficients of sequences have a type of their own", "[indexed]") {
  const std::vector<double> policy{-10, -11, -12, -13}, reference{-11, -11, -11, -11};
  const std::vector<std::int64_t> chosen{2, 0}, rejected{1, 3};
  std::vector<prospect::bfloat16> d(4);
  std::vector<double> d_chosen(2);
  evaluate(prospect::dpo{},
           {.policy = policy, .reference = reference, .chosen = chosen, .rejected = rejected},
           {.d_policy = d, .d_policy_chosen = d_chosen});
  for (std::size_t i = 0; i < 2; ++i) {
    CHECK(same_bits(d[static_cast<std::size_t>(chosen[i])],
                    prospect::bfloat16(static_cast<float>(d_chosen[i]))));
  }
  // Too large for the row of sequences: counted.
  std::vector<prospect::float16> small(4);
  const auto metrics =
      evaluate(prospect::ipo_sum{.tau = 1e-6},
               {.policy = policy, .reference = reference, .chosen = chosen, .rejected = rejected},
               {.d_policy = small}, normaliser::sum());
  CHECK(metrics.nonfinite.sum == 2);
  CHECK(metrics.first_nonfinite == 0);
}

TEST_CASE("a sequence may be in many pairs if coefficients are asked for per pair", "[indexed]") {
  // One answer against three.
  const std::vector<float> policy{-10, -11, -12, -13}, reference(4, -11);
  const std::vector<std::int32_t> chosen{0, 0, 0}, rejected{1, 2, 3};
  std::vector<float> d(4), d_chosen(3), d_rejected(3);
  const indexed_pairs in{
      .policy = policy, .reference = reference, .chosen = chosen, .rejected = rejected};
  const auto metrics =
      evaluate(prospect::dpo{}, in, {.d_policy_chosen = d_chosen, .d_policy_rejected = d_rejected});
  CHECK(metrics.loss.count == 3);
  for (std::size_t i = 0; i < 3; ++i) CHECK(d_chosen[i] == -d_rejected[i]);
  CHECK(refuses("chosen names sequence 0 again at 1",
                [&] { evaluate(prospect::dpo{}, in, {.d_policy = d}); }));
  for (const float x : d) CHECK(x == 0);
}

TEST_CASE("indices that name nothing, or the same twice, are refused by name and position",
          "[indexed][errors]") {
  const std::vector<float> policy{-10, -11, -12, -13}, reference(4, -11);
  const std::vector<std::int32_t> fine{0, 2};
  std::vector<float> d(4, 7.0F), loss(2, 7.0F);
  const auto call = [&](const index_row& chosen, const index_row& rejected) {
    evaluate(prospect::dpo{},
             {.policy = policy, .reference = reference, .chosen = chosen, .rejected = rejected},
             {.loss = loss, .d_policy = d});
  };
  constexpr std::int64_t most = std::numeric_limits<std::int64_t>::max();
  for (const std::int64_t bad : {std::int64_t{4}, std::int64_t{-1}, most, -most - 1}) {
    CAPTURE(bad);
    const std::vector<std::int64_t> with{1, bad};
    const std::string name = "names sequence " + std::to_string(bad) + " at 1";
    CHECK(refuses("rejected " + name, [&] { call(fine, with); }));
    CHECK(refuses("chosen " + name, [&] { call(with, fine); }));
  }
  const std::vector<std::int32_t> last{1, 3}, crossing{3, 2}, itself{0, 3}, three{1, 3, 0};
  CHECK(refuses("rejected names sequence 2 again at 1", [&] { call(fine, crossing); }));
  CHECK(refuses("rejected names sequence 0 again at 0", [&] { call(fine, itself); }));
  CHECK(refuses("rejected", [&] { call(fine, three); }));
  CHECK(refuses("chosen", [&] { call(index_row{fine.data(), -1}, last); }));
  CHECK(refuses("rejected", [&] { call(fine, index_row{fine.data(), -2}); }));
  CHECK(refuses("rejected", [&] {
    call(fine, index_row{static_cast<const std::int64_t*>(nullptr), 2});
  }));
  CHECK(refuses("chosen", [&] { call(index_row{fine.data(), most / 2, 0}, last); }));
  for (const float x : d) CHECK(x == 7);
  for (const float x : loss) CHECK(x == 7);
  CHECK_NOTHROW(call(fine, last));
  // What is missing or short has the names of this batch.
  const auto missing = [&](const std::string& name, const indexed_pairs& in,
                           const indexed_outputs& out) {
    CAPTURE(name);
    CHECK(refuses(name, [&] { evaluate(prospect::ipo{}, in, out); }));
  };
  const std::vector<std::int32_t> counts{1, 2, 3, 4}, negative{1, 2, -3, 4};
  const prospect::strided_span<const float> short_row{policy.data(), 3};
  const indexed_pairs whole{
      .policy = policy, .reference = reference, .tokens = counts, .chosen = fine, .rejected = last};
  CHECK_NOTHROW(evaluate(prospect::ipo{}, whole, {}));
  auto in = whole;
  in.reference = {};
  missing("reference", in, {});
  in.reference = short_row;
  missing("reference", in, {});
  in = whole;
  in.tokens = {};
  missing("tokens", in, {});
  in.tokens = negative;
  missing("tokens is negative at 2", in, {});
  in = whole;
  in.weight = short_row;
  missing("weight", in, {});
  in = whole;
  in.margin = short_row;
  missing("margin", in, {});
  in = whole;
  in.policy = {};
  missing("policy is missing", in, {});
  missing("d_policy", whole, {.d_policy = loss});
  missing("loss", whole, {.loss = d});
  missing("d_policy", whole, {.d_policy = {d.data(), 4, 0}});
}

TEST_CASE("no pairs leave coefficients of 0", "[indexed]") {
  const std::vector<float> policy{-10, -11};
  std::vector<float> d(2, 7.0F);
  const auto metrics =
      evaluate(prospect::dpo{}, {.policy = policy, .chosen = {}, .rejected = {}}, {.d_policy = d});
  CHECK(metrics.loss.count == 0);
  CHECK(d == std::vector<float>{0, 0});
}

TEST_CASE("a sequence named twice is found however far apart the two are", "[indexed]") {
  // More sequences than are marked at once.
  constexpr std::int32_t n = (1 << 17) + 10;
  const std::vector<float> policy(n, -3);
  std::vector<float> d(n);
  std::vector<std::int32_t> chosen, rejected;
  for (std::int32_t i = 0; i + 1 < n; i += 2) {
    chosen.push_back(i);
    rejected.push_back(i + 1);
  }
  const auto call = [&] {
    evaluate(prospect::dpo{},
             {.policy = policy, .reference = policy, .chosen = chosen, .rejected = rejected},
             {.d_policy = d});
  };
  CHECK_NOTHROW(call());
  const auto same = [&](float x) { return x == d[0] || x == -d[0]; };
  CHECK(d[0] < 0);
  CHECK(std::all_of(d.begin(), d.end(), same));
  rejected.back() = rejected[0];
  CHECK(refuses("rejected names sequence 1 again", call));
  rejected.back() = chosen[chosen.size() - 2];
  CHECK(refuses("rejected names sequence " + std::to_string(rejected.back()) + " again", call));
}
