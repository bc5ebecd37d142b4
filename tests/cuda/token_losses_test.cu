// Losses of tokens on CUDA against the textbook, token by token; and what must change nothing: how
// a batch is launched and laid out, what stands where nothing is scored.
#include <cmath>
#include <cstdint>
#include <limits>
#include <string_view>
#include <vector>

#include "cpu/token_loss_checks.hpp"
#include "cuda/sequence_cases.hpp"
#include "cuda/token_loss_cases.hpp"

namespace {

namespace gpu = prospect::cuda;
using prospect::averaging;
using prospect::normaliser;
using prospect::token_metrics;
using testing::on_device_tokens;
using testing::random_source;
using testing::same_bits;
using testing::token_loss_case;

template <class Loss>
token_metrics evaluate_tokens(const Loss& loss, token_loss_case& c, const gpu::denominator& by) {
  const on_device_tokens d{c};
  const testing::device_metrics<token_metrics> metrics;
  testing::require_success(testing::with_scratch([&](gpu::scratch space) {
    return gpu::evaluate(loss, d.in(), d.out(), by, metrics.data(), space, nullptr);
  }));
  d.fetch();
  return metrics.host();
}

template <class Loss>
void check_tokens_by_hand(const Loss& loss, token_loss_case c, const normaliser& by) {
  const token_metrics m = evaluate_tokens(loss, c, by);
  check_token_results(c, m, loss.average, by_hand(loss, c, by));
}

std::vector<double> token_results(const token_loss_case& c) {
  std::vector<double> all;
  for (const auto* row : {&c.loss, &c.d_policy, &c.d_entropy}) {
    for (std::int64_t t = 0; t < c.rows; ++t) all.push_back((*row)[t]);
  }
  return all;
}

bool same_token_metrics(const token_metrics& a, const token_metrics& b) {
  const auto x = a.named(), y = b.named();
  bool same = same_bits(a.total, b.total) && a.first_nonfinite == b.first_nonfinite;
  for (std::size_t i = 0; i < x.size(); ++i) {
    same = same && same_bits(x[i].value.sum, y[i].value.sum) &&
           same_bits(x[i].value.count, y[i].value.count);
  }
  return same;
}

/// By schemes that this program has on this device.
template <class Loss>
void check_schemes(const Loss& loss, token_loss_case c) {
  std::vector<double> first;
  token_metrics first_metrics;
  for (const auto scheme : testing::schemes) {
    if (scheme == testing::sequence_scheme::cluster && !testing::has_clusters()) continue;
    if (scheme == testing::sequence_scheme::cluster && c.sequences() > 64) continue;
    if (scheme == testing::sequence_scheme::block && c.sequences() > 4) continue;
    CAPTURE(static_cast<int>(scheme));
    const on_device_tokens d{c};
    const testing::device_metrics<token_metrics> metrics;
    testing::run_scheme(
        gpu::detail::token_loss_job<Loss, float>{loss, d.in(), d.out(), normaliser::mean(),
                                                 metrics.data()},
        scheme);
    d.fetch();
    if (first.empty()) {
      first = token_results(c);
      first_metrics = metrics.host();
    }
    CHECK(same_bits(first, token_results(c)));
    CHECK(same_token_metrics(first_metrics, metrics.host()));
  }
  CHECK(first_metrics.tokens.sum > 0);
}

}  // namespace

TEST_CASE("tokens on the device, their coefficients and every metric by hand") {
  random_source random{501};
  CAPTURE(random.seed());
  const int rounds = testing::full_size() ? 120 : 12;
  for (int round = 0; round < rounds; ++round) {
    std::vector<std::int64_t> lengths;
    for (auto n = random.integer(1, 7); n > 0; --n) {
      lengths.push_back(random.chance(0.2) ? random.integer(0, 1) : random.integer(2, 600));
    }
    const token_loss_case c = testing::random_tokens(random, round % 2 == 0, lengths);
    const auto average = static_cast<averaging>(round / 2 % 3);
    const normaliser by = random.chance(0.5)   ? normaliser::mean()
                          : random.chance(0.5) ? normaliser::sum()
                                               : normaliser::over(17);
    CAPTURE(round, static_cast<int>(average), c.rows, c.sequences());
    const double pull = c.reference.given() ? 0.25 : 0;
    check_tokens_by_hand(testing::clipped_loss<>{.average = average, .pull = pull}, c, by);
    check_tokens_by_hand(testing::summing_loss{average}, c, by);
  }
}

TEST_CASE("tokens in every scheme: the same bits, on both sides of what one launch takes") {
  random_source random{502};
  const std::vector<std::int64_t> longer{700, 0, 2100, 1}, more{3, 0, 600, 1, 513};
  for (const auto& lengths : {longer, more}) {
    const token_loss_case c = testing::random_tokens(random, false, lengths);
    check_schemes(testing::summing_loss{averaging::sequence_means}, c);
  }
}

TEST_CASE("more sequences of tokens than there are stripes: a block has two of some") {
  if (!testing::full_size()) return;  // a thousand blocks
  random_source random{507};
  std::vector<std::int64_t> many(1030, 1);
  many[1] = many[1025] = 40;
  const token_loss_case c = testing::random_tokens(random, false, many);
  check_tokens_by_hand(testing::summing_loss{averaging::tokens}, c, normaliser::mean());
}

TEST_CASE("the same sequences elsewhere in a batch of tokens: the same bits") {
  random_source random{503};
  const testing::summing_loss loss{averaging::sequence_means};
  token_loss_case packed = testing::random_tokens(random, false, {300, 20, 0, 700});
  packed.targets.clear();
  packed.mask.clear();
  for (std::int64_t i = 0; i < packed.sequences(); ++i) {
    const auto k = static_cast<std::size_t>(i);
    for (std::int64_t t = packed.begins[k]; t < packed.ends[k]; ++t) {
      packed.policy.put(t, -random.uniform(0.5, 4));
      for (auto* row : {&packed.old, &packed.reference, &packed.token_advantage, &packed.weight,
                        &packed.entropy}) {
        if (row->given()) row->put(t, random.uniform(-2, 2));
      }
    }
  }
  token_loss_case moved = packed;
  const std::int64_t width = 1000;
  moved.rows = width * packed.sequences();
  for (auto* row :
       {&moved.policy, &moved.old, &moved.reference, &moved.token_advantage, &moved.weight,
        &moved.entropy, &moved.loss, &moved.d_policy, &moved.d_entropy}) {
    if (!row->given()) continue;
    const testing::run_time_row before = *row;
    *row = {before.type(), moved.rows};
    for (std::int64_t t = 0; t < moved.rows; ++t) {
      row->put(t, std::numeric_limits<double>::quiet_NaN());
    }
    for (std::size_t i = 0; i < packed.begins.size(); ++i) {
      const std::int64_t first = static_cast<std::int64_t>(i) * width + 11;
      moved.begins[i] = first - 11;
      moved.ends[i] = first - 11 + width;
      for (std::int64_t k = 0; k < packed.ends[i] - packed.begins[i]; ++k) {
        row->put(first + k, before[packed.begins[i] + k]);
      }
    }
  }
  moved.mask.assign(static_cast<std::size_t>(moved.rows), 0);
  for (std::size_t i = 0; i < packed.begins.size(); ++i) {
    for (std::int64_t k = 0; k < packed.ends[i] - packed.begins[i]; ++k) {
      moved.mask[i * width + 11 + static_cast<std::size_t>(k)] = 1;
    }
  }
  const token_metrics m = evaluate_tokens(loss, packed, normaliser::mean());
  CHECK(same_token_metrics(m, evaluate_tokens(loss, moved, normaliser::mean())));
  for (std::int64_t t = 0; t < moved.rows; ++t) {
    if (moved.mask[static_cast<std::size_t>(t)] == 0) CHECK(moved.loss[t] == 0);
  }
  for (std::size_t i = 0; i < packed.begins.size(); ++i) {
    for (std::int64_t k = 0; k < packed.ends[i] - packed.begins[i]; ++k) {
      const std::int64_t from = packed.begins[i] + k;
      const std::int64_t to = static_cast<std::int64_t>(i) * width + 11 + k;
      REQUIRE(same_bits(packed.loss[from], moved.loss[to]));
      REQUIRE(same_bits(packed.d_policy[from], moved.d_policy[to]));
    }
  }
}

TEST_CASE("what is no number stays in its token, or its sequence, on the device") {
  constexpr double nan = std::numeric_limits<double>::quiet_NaN();
  random_source random{504};
  token_loss_case c = testing::random_tokens(random, true, {30, 20, 10});
  c.targets.clear();
  c.mask.clear();
  c.weight = c.entropy = c.reference = {};
  c.entropy_coef = 0;
  for (std::int64_t i = 0; i < 3; ++i) {
    for (auto t = c.begins[static_cast<std::size_t>(i)]; t < c.ends[static_cast<std::size_t>(i)];
         ++t) {
      c.policy.put(t, -1.5);
      if (c.old.given()) c.old.put(t, -1.25);
      if (c.token_advantage.given()) c.token_advantage.put(t, 2);
    }
  }
  const std::int64_t bad = c.begins[1] + 7;
  c.policy.put(bad, nan);
  const auto nans = [&] {
    std::int64_t count = 0;
    for (std::int64_t t = 0; t < c.rows; ++t) count += std::isnan(c.d_policy[t]) ? 1 : 0;
    return count;
  };
  const token_metrics own = evaluate_tokens(testing::clipped_loss<>{}, c, normaliser::mean());
  CHECK(nans() == 1);
  CHECK(std::isnan(c.loss[bad]));
  CHECK(own.nonfinite.sum == 1);
  CHECK(own.first_nonfinite == bad);
  const token_metrics shared = evaluate_tokens(testing::summing_loss{}, c, normaliser::mean());
  CHECK(nans() == 20);
  CHECK(shared.nonfinite.sum == 20);
  CHECK(shared.first_nonfinite == c.begins[1]);
  c.policy.put(bad, -1.5);
  c.token_advantage = {};
  c.advantage = {prospect::dtype::f32, 3};
  c.advantage.put(1, nan);
  const token_metrics unread = evaluate_tokens(prospect::sft{}, c, normaliser::mean());
  CHECK(nans() == 0);
  CHECK(unread.nonfinite.sum == 20);  // an input, though nothing is made of it

  c.advantage.put(1, 2);
  c.weight = {prospect::dtype::f32, c.rows};
  for (std::int64_t t = 0; t < c.rows; ++t) c.weight.put(t, t == bad ? nan : 1);
  const token_metrics attached = evaluate_tokens(testing::summing_loss{}, c, normaliser::mean());
  CHECK(nans() == 20);
  CHECK(attached.nonfinite.sum == 20);
  const token_metrics detached = evaluate_tokens(prospect::gspo_token{}, c, normaliser::mean());
  CHECK(nans() == 1);
  CHECK(detached.nonfinite.sum == 1);
}

TEST_CASE("batches of tokens without any, a count on the device, and one that is no count") {
  const testing::clipped_loss<> loss{};
  const std::vector<double> counts{8, 0};
  const testing::device_array<double> count{counts};
  random_source random{505};
  token_loss_case c = testing::random_tokens(random, false, {9, 30});
  const token_metrics m = evaluate_tokens(loss, c, gpu::denominator::over(count.data()));
  check_token_results(c, m, loss.average, by_hand(loss, c, normaliser::over(8)));
  const token_metrics none = evaluate_tokens(loss, c, gpu::denominator::over(count.data() + 1));
  CHECK(std::isnan(none.total));

  token_loss_case empty = testing::random_tokens(random, false, {0, 0});
  CHECK(evaluate_tokens(loss, empty, normaliser::mean()).tokens.count == 0);
  token_loss_case masked = testing::random_tokens(random, false, {5, 3});
  masked.mask.assign(static_cast<std::size_t>(masked.rows), 0);
  const token_metrics nothing = evaluate_tokens(loss, masked, normaliser::mean());
  CHECK(nothing.total == 0);
  CHECK(nothing.tokens.sum == 0);
  for (const double x : token_results(masked)) CHECK(x == 0);
}

TEST_CASE("what is refused of a batch of tokens on the device, by name") {
  random_source random{506};
  token_loss_case c = testing::random_tokens(random, false, {4, 3});
  c.advantage = {prospect::dtype::f32, 2};
  c.token_advantage = {};
  const on_device_tokens d{c};
  const testing::clipped_loss<> plain{};
  const testing::clipped_loss<> pulled{.pull = 0.5};
  const auto refused = [&](std::string_view words, const auto& change, bool pull = false) {
    prospect::token_batch in = d.in();
    prospect::token_batch_outputs out = d.out();
    gpu::denominator by = normaliser::mean();
    change(in, out, by);
    const auto& loss = pull ? pulled : plain;
    const char* const why = gpu::problem(loss, in, out, by);
    CAPTURE(words);
    REQUIRE(why != nullptr);
    CHECK(std::string_view{why}.find(words) == 0);
    CHECK(gpu::evaluate(loss, in, out, by, nullptr, {}, nullptr) == cudaErrorInvalidValue);
  };
  CHECK(gpu::problem(plain, d.in(), d.out(), normaliser::mean()) == nullptr);
  refused("old must have", [](auto& in, auto&, auto&) { in.old = in.advantage; });
  refused("advantage must have", [](auto& in, auto&, auto&) { in.advantage = in.policy; });
  refused("advantage is missing", [](auto& in, auto&, auto&) { in.advantage = {}; });
  refused("token_advantage is given as well",
          [](auto& in, auto&, auto&) { in.token_advantage = in.policy; });
  refused(
      "reference is missing", [](auto& in, auto&, auto&) { in.reference = {}; }, true);
  refused("entropy is missing", [](auto& in, auto&, auto&) {
    in.entropy = {};
    in.entropy_coef = 0.5;
  });
  refused("entropy_coef", [](auto& in, auto&, auto&) {
    in.entropy_coef = std::numeric_limits<double>::infinity();
  });
  refused("layout",
          [](auto& in, auto&, auto&) { in.layout = prospect::sequence_layout::padded(2, 1000); });
  refused("targets", [](auto& in, auto&, auto&) {
    in.targets = prospect::index_row{static_cast<const std::int64_t*>(nullptr), in.policy.size()};
  });
  refused("d_policy has stride 0", [](auto&, auto& out, auto&) {
    out.d_policy = {out.loss.data(), out.loss.type(), out.loss.size(), 0};
  });
  refused("normaliser", [](auto&, auto&, auto& by) { by = gpu::denominator::over(nullptr); });
}
