// Losses chosen at run time in every schedule of their kernel: rows that a thread has one, several
// and many of, in one block, in a cluster (on a device of 9.0) and in a grid (on others).
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "cuda/c_surface.hpp"
#include "random.hpp"

namespace {

using testing::both;
using testing::c_loss;
using testing::c_metrics;
using testing::c_row;
using testing::check_close;
using testing::device_array;
using testing::normals;
using testing::random_source;
using testing::run_on_device;
using testing::sized;

const std::vector<std::int64_t> sizes{513, 1025, 2055, 8200};

}  // namespace

TEMPLATE_TEST_CASE("any pair's loss in every schedule, on the device as on the host", "", float,
                   double) {
  const device_array<prospect_device_metrics> metrics(1);
  struct named_loss {
    const char* name;
    const char* score = "reverse_kl";
  };
  for (const std::int64_t n : sizes) {
    CAPTURE(n);
    random_source random{static_cast<std::uint64_t>(900 + n)};
    const both<TestType> policy{normals<TestType>(random, 2 * n, -50, 5)};
    const both<TestType> reference{normals<TestType>(random, 2 * n, -50, 5)};
    const both<std::int32_t> counts{testing::token_counts(random, 2 * n)};
    for (const auto& [name, score] :
         std::vector<named_loss>{{"rpo"}, {"exo"}, {"sigmoid_norm", "js_divergence"}}) {
      CAPTURE(name, score);
      prospect_loss loss = c_loss(name);
      REQUIRE(prospect_loss_set_score(&loss, score, 0.5, nullptr) == PROSPECT_OK);
      std::vector<TestType> each(static_cast<std::size_t>(n), 7), d = each, e = each;
      const device_array<TestType> device_each(each.size()), device_d(each.size()),
          device_e(each.size());
      c_metrics want;
      const auto args = [&](bool device) {
        const auto side = [&](const auto& row, std::int64_t which) {
          return prospect_row_slice(row.row(device), which * n, n);
        };
        auto p = sized<prospect_pairs>();
        p.policy_chosen = side(policy, 0);
        p.policy_rejected = side(policy, 1);
        p.reference_chosen = side(reference, 0);
        p.reference_rejected = side(reference, 1);
        p.chosen_tokens = side(counts, 0);
        p.rejected_tokens = side(counts, 1);
        p.loss = device ? c_row(device_each) : c_row(each);
        p.d_policy_chosen = device ? c_row(device_d) : c_row(d);
        p.d_policy_rejected = device ? c_row(device_e) : c_row(e);
        return p;
      };
      const prospect_pairs host = args(false), device = args(true);
      prospect_error error{};
      testing::require_ok(prospect_pairs_cpu(&loss, &host, &want, nullptr, &error), error);
      run_on_device([&](const prospect_context* on, prospect_error* e) {
        return prospect_pairs_cuda(&loss, &device, metrics.data(), on, e);
      });
      check_close(device_each.host(), each, 8e-6L, 1e-6L);
      check_close(device_d.host(), d, 8e-6L, 1e-9L);
      check_close(device_e.host(), e, 8e-6L, 1e-9L);
      testing::check_close_metrics(testing::read_metrics(loss, metrics), want);
    }
  }
}

TEMPLATE_TEST_CASE("any thumb's loss in every schedule, each class against the other", "", float,
                   double) {
  const device_array<prospect_device_metrics> metrics(1);
  for (const std::int64_t n : sizes) {
    CAPTURE(n);
    random_source random{static_cast<std::uint64_t>(900 + n)};
    const both<TestType> reference{normals<TestType>(random, n, -50, 5)};
    std::vector<TestType> moved = reference.host;
    for (TestType& x : moved) x += static_cast<TestType>(random.normal(1) + 0.5);
    const both<TestType> policy{moved};
    const both<std::int32_t> counts{testing::token_counts(random, n)};
    const both<std::uint8_t> up{testing::flags(random, n)};
    const prospect_loss loss = c_loss("kto_logsigmoid");
    std::vector<TestType> each(static_cast<std::size_t>(n), 7), d = each;
    const device_array<TestType> device_each(each.size()), device_d(each.size());
    c_metrics want;
    const auto args = [&](bool device) {
      auto c = sized<prospect_completions>();
      c.reference_point = PROSPECT_CROSS_CLASS;
      c.policy = policy.row(device);
      c.reference = reference.row(device);
      c.tokens = counts.row(device);
      c.desirable = up.row(device);
      c.loss = device ? c_row(device_each) : c_row(each);
      c.d_policy = device ? c_row(device_d) : c_row(d);
      return c;
    };
    const prospect_completions host = args(false), device = args(true);
    prospect_error error{};
    testing::require_ok(prospect_completions_cpu(&loss, &host, &want, nullptr, &error), error);
    run_on_device([&](const prospect_context* on, prospect_error* e) {
      return prospect_completions_cuda(&loss, &device, metrics.data(), on, e);
    });
    check_close(device_each.host(), each, 8e-6L, 1e-6L);
    check_close(device_d.host(), d, 8e-6L, 1e-9L);
    testing::check_close_metrics(testing::read_metrics(loss, metrics), want);
  }
}

TEST_CASE("a pair of no sequence counts as one token of a next-token term") {
  const std::vector<float> policy{-6, -5, -4, -9}, right{-6, -4, -5, -9};
  const std::vector<std::int32_t> counts{3, 1, 7, 1}, halves{3, 1, 1, 1};
  const device_array<float> device_policy{policy};
  const device_array<std::int32_t> device_counts{counts};
  prospect_loss loss = c_loss("cpo");
  REQUIRE(prospect_loss_set(&loss, "cpo_alpha", 1, nullptr) == PROSPECT_OK);
  // A pair of which nothing is known but that it counts, side by side with the good one.
  auto known = sized<prospect_pairs>();
  std::vector<float> want(2), want_d(2);
  known.policy_chosen = prospect_row_slice(c_row(right), 0, 2);
  known.policy_rejected = prospect_row_slice(c_row(right), 2, 2);
  known.chosen_tokens = prospect_row_slice(c_row(halves), 0, 2);
  known.rejected_tokens = prospect_row_slice(c_row(halves), 2, 2);
  known.loss = c_row(want), known.d_policy_chosen = c_row(want_d);
  prospect_error error{};
  testing::require_ok(prospect_pairs_cpu(&loss, &known, nullptr, nullptr, &error), error);

  for (const bool bad_chosen : {true, false}) {
    for (const std::int32_t bad : {-1, 4, 1 << 30}) {
      CAPTURE(bad_chosen, bad);
      const std::vector<std::int32_t> chosen{0, bad_chosen ? bad : 2},
          rejected{1, bad_chosen ? 3 : bad};
      const device_array<std::int32_t> device_chosen{chosen}, device_rejected{rejected};
      const device_array<float> each(2), d(2);
      auto p = sized<prospect_pairs>();
      p.policy = c_row(device_policy), p.tokens = c_row(device_counts);
      p.chosen = c_row(device_chosen), p.rejected = c_row(device_rejected);
      p.loss = c_row(each), p.d_policy_chosen = c_row(d);
      run_on_device([&](const prospect_context* on, prospect_error* e) {
        return prospect_pairs_cuda(&loss, &p, nullptr, on, e);
      });
      CHECK(std::abs(each.host()[0] - want[0]) <= 4e-6F * std::abs(want[0]));
      CHECK(std::abs(d.host()[0] - want_d[0]) <= 4e-6F * std::abs(want_d[0]));
      CHECK(std::isnan(each.host()[1]));
    }
  }
}
