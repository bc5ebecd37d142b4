// The C surface on sequences, on the device as on the host: every loss, rows that differ in dtype,
// pairs by index, every reference point.
#include <cmath>
#include <cstdint>
#include <limits>
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
using testing::same_bits;
using testing::sized;

constexpr std::int64_t n = 67;

struct c_batch {
  random_source random{801};
  both<double> a{normals<double>(random, n, -50, 10)}, b{normals<double>(random, n, -50, 10)};
  both<float> fa{std::vector<float>(a.host.begin(), a.host.end())};
  both<float> fb{std::vector<float>(b.host.begin(), b.host.end())};
  both<float> ra{normals<float>(random, n, -50, 10)}, rb{normals<float>(random, n, -50, 10)};
  both<float> weight{normals<float>(random, n, 1, 0.25)}, margin{normals<float>(random, n, 0, 1)};
  both<std::int32_t> tokens{testing::token_counts(random, n)};
  both<std::uint8_t> desirable{testing::flags(random, n)};
};

/// Two rows of results on either side.
struct results {
  std::vector<float> loss = std::vector<float>(n, 7), d = loss;
  device_array<float> device_loss{static_cast<std::size_t>(n)}, device_d{device_loss.size()};

  void check() const {
    check_close(device_loss.host(), loss, 4e-6L, 1e-7L);
    check_close(device_d.host(), d, 4e-6L, 1e-9L);
  }
};

}  // namespace

TEST_CASE("every paired loss through C, on the device as on the host, rows alike and not") {
  const c_batch batch;
  const std::vector<double> count{11};
  const device_array<double> device_count{count};
  const device_array<prospect_device_metrics> metrics(1);
  struct named_loss {
    const char* name;
    const char* score = "reverse_kl";
  };
  for (const auto& [name, score] : std::vector<named_loss>{{"dpo"},
                                                           {"robust_dpo"},
                                                           {"ipo"},
                                                           {"ipo_sum"},
                                                           {"hinge"},
                                                           {"dpo", "forward_kl"},
                                                           {"dpo", "js_divergence"},
                                                           {"sigmoid_norm", "alpha_divergence"}}) {
    CAPTURE(name, score);
    prospect_loss loss = c_loss(name);
    REQUIRE(prospect_loss_set_score(&loss, score, 0.5, nullptr) == PROSPECT_OK);
    for (const bool mixed : {false, true}) {
      CAPTURE(mixed);
      results r;
      c_metrics want;
      const auto args = [&](bool device) {
        auto p = sized<prospect_pairs>();
        p.normaliser = PROSPECT_OVER_AT;
        p.count_at = device ? device_count.data() : count.data();
        p.policy_chosen = mixed ? batch.a.row(device) : batch.fa.row(device);
        p.policy_rejected = mixed ? batch.b.row(device) : batch.fb.row(device);
        p.reference_chosen = batch.ra.row(device);
        p.reference_rejected = batch.rb.row(device);
        p.chosen_tokens = p.rejected_tokens = batch.tokens.row(device);
        p.weight = batch.weight.row(device);
        p.margin = batch.margin.row(device);
        p.loss = device ? c_row(r.device_loss) : c_row(r.loss);
        p.d_policy_chosen = device ? c_row(r.device_d) : c_row(r.d);
        return p;
      };
      const prospect_pairs host = args(false), device = args(true);
      prospect_error error{};
      testing::require_ok(prospect_pairs_cpu(&loss, &host, &want, nullptr, &error), error);
      run_on_device([&](const prospect_context* on, prospect_error* e) {
        return prospect_pairs_cuda(&loss, &device, metrics.data(), on, e);
      });
      r.check();
      testing::check_close_metrics(testing::read_metrics(loss, metrics), want);
    }
  }
}

TEST_CASE("next-token terms and third completions through C, on the device as on the host") {
  const c_batch batch;
  const std::vector<double> counts{11, 90};
  const device_array<double> device_counts{counts};
  const device_array<prospect_device_metrics> metrics(1);
  const both<double> gold{std::vector<double>(batch.b.host.rbegin(), batch.b.host.rend())};
  const both<std::int32_t> gold_tokens{
      std::vector<std::int32_t>(batch.tokens.host.rbegin(), batch.tokens.host.rend())};
  for (const char* name : {"cpo", "orpo", "mpo", "tpo", "tpo_l"}) {
    const bool third = std::string{name} != "cpo" && std::string{name} != "mpo";
    for (const int kind : {PROSPECT_MEAN, PROSPECT_SUM, PROSPECT_OVER, PROSPECT_OVER_AT}) {
      CAPTURE(name, kind);
      const prospect_loss loss = c_loss(name);
      results r;
      std::vector<double> dc(n, 7), dt(n, 7);
      const device_array<double> device_dc(static_cast<std::size_t>(n)),
          device_dt(device_dc.size());
      c_metrics want;
      const auto args = [&](bool device) {
        auto p = sized<prospect_pairs>();
        p.normaliser = kind;
        p.count = kind == PROSPECT_OVER ? 11 : 0;
        p.token_count = kind == PROSPECT_OVER ? 90 : 0;
        p.count_at = device ? device_counts.data() : counts.data();
        if (kind == PROSPECT_OVER_AT) p.token_count_at = p.count_at + 1;
        p.policy_chosen = batch.a.row(device);
        p.policy_rejected = batch.b.row(device);
        p.reference_chosen = batch.ra.row(device);
        p.reference_rejected = batch.rb.row(device);
        p.chosen_tokens = p.rejected_tokens = batch.tokens.row(device);
        p.weight = batch.weight.row(device);
        p.loss = device ? c_row(r.device_loss) : c_row(r.loss);
        p.d_policy_chosen = device ? c_row(device_dc) : c_row(dc);
        p.d_policy_rejected = device ? c_row(r.device_d) : c_row(r.d);
        if (third) {
          p.policy_third = gold.row(device);
          p.third_tokens = gold_tokens.row(device);
          p.d_policy_third = device ? c_row(device_dt) : c_row(dt);
        }
        return p;
      };
      const prospect_pairs host = args(false), device = args(true);
      prospect_error error{};
      testing::require_ok(prospect_pairs_cpu(&loss, &host, &want, nullptr, &error), error);
      run_on_device([&](const prospect_context* on, prospect_error* e) {
        return prospect_pairs_cuda(&loss, &device, metrics.data(), on, e);
      });
      r.check();
      check_close(device_dc.host(), dc, 1e-13L, 1e-15L);
      if (third) check_close(device_dt.host(), dt, 1e-13L, 1e-15L);
      testing::check_close_metrics(testing::read_metrics(loss, metrics), want);
    }
  }
}

TEST_CASE("a third completion among sequences, on the device as on the host") {
  const c_batch batch;
  const both<std::int32_t> chosen{std::vector<std::int32_t>{3, 66, 12}};
  const both<std::int64_t> rejected{std::vector<std::int64_t>{0, 4, 5}};
  both<std::int64_t> third{std::vector<std::int64_t>{1, 30, 2}};
  const prospect_loss loss = c_loss("tpo");
  std::vector<double> d(n, 7), dt(3, 7);
  const device_array<double> device_d(static_cast<std::size_t>(n)), device_dt(3);
  const auto args = [&](bool device) {
    auto p = sized<prospect_pairs>();
    p.policy = batch.a.row(device);
    p.tokens = batch.tokens.row(device);
    p.chosen = chosen.row(device);
    p.rejected = rejected.row(device);
    p.third = third.row(device);
    p.d_policy = device ? c_row(device_d) : c_row(d);
    p.d_policy_third = device ? c_row(device_dt) : c_row(dt);
    return p;
  };
  const prospect_pairs host = args(false), device = args(true);
  prospect_error error{};
  testing::require_ok(prospect_pairs_cpu(&loss, &host, nullptr, nullptr, &error), error);
  const auto run = [&] {
    run_on_device([&](const prospect_context* on, prospect_error* e) {
      return prospect_pairs_cuda(&loss, &device, nullptr, on, e);
    });
  };
  run();
  check_close(device_d.host(), d, 1e-13L, 1e-15L);
  check_close(device_dt.host(), dt, 1e-13L, 1e-15L);
  CHECK(device_d.host()[7] == 0);

  // The host cannot see a sequence that is named twice, or that there is not.
  third.device.set({1, 30, 5});
  run();
  CHECK(std::isnan(device_d.host()[5]));
  third.device.set({1, 30, n});
  run();
  CHECK(std::isnan(device_dt.host()[2]) == (batch.tokens.host[12] > 0 && batch.tokens.host[5] > 0));
  CHECK(std::isfinite(device_dt.host()[0]));
}

TEST_CASE("a wrong denominator and a missing third completion are refused on the device, too") {
  const c_batch batch;
  auto p = sized<prospect_pairs>();
  p.policy_chosen = batch.a.row(true);
  p.policy_rejected = batch.b.row(true);
  p.chosen_tokens = p.rejected_tokens = batch.tokens.row(true);
  const auto refused = [&](const char* name, const char* words) {
    const prospect_loss loss = c_loss(name);
    prospect_error error{};
    const prospect_status status = prospect_pairs_cuda(&loss, &p, nullptr, nullptr, &error);
    testing::refused(status, PROSPECT_INVALID_ARGUMENT, error, words);
  };
  refused("tpo", "policy_third");
  p.policy_third = batch.b.row(true);
  refused("tpo", "third_tokens");
  refused("cpo", "policy_third");
  p.policy_third = {};
  p.normaliser = PROSPECT_OVER;
  p.count = 5;
  refused("cpo", "normaliser");
  p.token_count = -1;
  refused("cpo", "token_count");
}

TEST_CASE("every unpaired loss and reference point through C, on the device as on the host") {
  const c_batch batch;
  const device_array<prospect_device_metrics> metrics(1);
  for (const char* name : {"kto", "kto_zero", "a2po"}) {
    const prospect_loss loss = c_loss(name);
    for (const bool mixed : {false, true}) {
      for (const prospect_reference point :
           {PROSPECT_GIVEN_POINT, PROSPECT_CROSS_CLASS, PROSPECT_OBSERVED, PROSPECT_BATCH_MEAN,
            PROSPECT_MEAN_OBSERVED}) {
        CAPTURE(name, mixed, point);
        const std::vector<prospect_observation> observed{
            {point == PROSPECT_MEAN_OBSERVED ? -30.0 : 30.0, 12, 0, -1}};
        const device_array<prospect_observation> device_observed{observed};
        results r;
        c_metrics want;
        prospect_observation seen{};
        const device_array<prospect_observation> device_seen(1);
        const auto args = [&](bool device) {
          auto c = sized<prospect_completions>();
          c.reference_point = point;
          c.z = c.z_raw = 1.5;
          c.observed = device ? device_observed.data() : observed.data();
          c.policy = mixed ? batch.a.row(device) : batch.fa.row(device);
          c.reference = batch.ra.row(device);
          c.mismatched_policy = mixed ? batch.b.row(device) : batch.fb.row(device);
          c.mismatched_reference = batch.rb.row(device);
          c.mismatched_tokens = c.tokens = batch.tokens.row(device);
          c.desirable = batch.desirable.row(device);
          c.weight = batch.weight.row(device);
          if (std::string{name} == "a2po") c.target = batch.margin.row(device);
          c.loss = device ? c_row(r.device_loss) : c_row(r.loss);
          c.d_policy = device ? c_row(r.device_d) : c_row(r.d);
          c.seen = device ? device_seen.data() : &seen;
          return c;
        };
        const prospect_completions host = args(false), device = args(true);
        prospect_error error{};
        testing::require_ok(prospect_completions_cpu(&loss, &host, &want, nullptr, &error), error);
        run_on_device([&](const prospect_context* on, prospect_error* e) {
          return prospect_completions_cuda(&loss, &device, metrics.data(), on, e);
        });
        r.check();
        testing::check_close_metrics(testing::read_metrics(loss, metrics), want);
        if (point == PROSPECT_BATCH_MEAN) {
          CHECK(device_seen.host()[0].count == seen.count);
          CHECK(testing::near(device_seen.host()[0].sum, seen.sum, 1e-6L));
          CHECK(device_seen.host()[0].nonfinite == 0);
        }
      }
    }
  }
}

TEST_CASE("pairs by index on the device, in arithmetic of both kinds") {
  const c_batch batch;
  const both<std::int32_t> chosen{std::vector<std::int32_t>{3, 66, 12}};
  const both<std::int64_t> rejected{std::vector<std::int64_t>{0, 4, 5}};
  const prospect_loss loss = c_loss("ipo");
  for (const bool fp64 : {false, true}) {
    CAPTURE(fp64);
    std::vector<double> d(n, 7), dc(3, 7);
    const device_array<double> device_d(static_cast<std::size_t>(n)), device_dc(3);
    const auto args = [&](bool device) {
      auto p = sized<prospect_pairs>();
      p.policy = fp64 ? batch.a.row(device) : batch.fa.row(device);
      p.reference = batch.ra.row(device);
      p.tokens = batch.tokens.row(device);
      p.chosen = chosen.row(device);
      p.rejected = rejected.row(device);
      p.d_policy = device ? c_row(device_d) : c_row(d);
      p.d_policy_chosen = device ? c_row(device_dc) : c_row(dc);
      return p;
    };
    const prospect_pairs host = args(false), device = args(true);
    prospect_error error{};
    testing::require_ok(prospect_pairs_cpu(&loss, &host, nullptr, nullptr, &error), error);
    run_on_device([&](const prospect_context* on, prospect_error* e) {
      return prospect_pairs_cuda(&loss, &device, nullptr, on, e);
    });
    check_close(device_d.host(), d, 4e-6L, 1e-9L);
    check_close(device_dc.host(), dc, 4e-6L, 1e-9L);
    CHECK(device_d.host()[1] == 0);
  }
}

TEST_CASE("mismatched rows on the device: what is no number is left out and counted") {
  std::vector<float> policy{-3, std::numeric_limits<float>::quiet_NaN(), -4};
  const std::vector<double> reference{-5, 0, -4.5};
  const std::vector<std::int32_t> tokens{3, 5, 2};
  const device_array<float> p{policy};
  const device_array<double> r{reference};
  const device_array<std::int32_t> t{tokens};
  const device_array<prospect_observation> seen(1);
  run_on_device([&](const prospect_context* on, prospect_error* e) {
    return prospect_mismatched_kl_cuda(c_row(p), c_row(r), c_row(t), seen.data(), on, e);
  });
  CHECK(seen.host()[0].sum == 2.5);
  CHECK(seen.host()[0].count == 2);
  CHECK(seen.host()[0].nonfinite == 1);
  CHECK(seen.host()[0].first_nonfinite == 1);
}
