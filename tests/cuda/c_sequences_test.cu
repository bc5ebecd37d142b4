// The C surface on sequences, on the device as on the host: every loss, rows that differ in dtype,
// pairs by index, every reference point.
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "cuda/c_surface.hpp"
#include "random.hpp"

namespace {

using testing::c_loss;
using testing::c_metrics;
using testing::c_row;
using testing::check_close;
using testing::device_array;
using testing::random_source;
using testing::run_on_device;
using testing::same_bits;
using testing::sized;

constexpr std::int64_t n = 67;

/// Log-probabilities of two sides, on the host and on the device.
template <class T>
struct both {
  std::vector<T> host;
  device_array<T> device;
  explicit both(std::vector<T> values) : host(std::move(values)), device{host} {}
  prospect_row row(bool on_device) const { return on_device ? c_row(device) : c_row(host); }
};

template <class T>
std::vector<T> numbers(random_source& random, double mean, double spread) {
  std::vector<T> v;
  for (std::int64_t i = 0; i < n; ++i) v.push_back(static_cast<T>(random.normal(spread) + mean));
  return v;
}

struct c_batch {
  random_source random{801};
  both<double> a{numbers<double>(random, -50, 10)}, b{numbers<double>(random, -50, 10)};
  both<float> fa{std::vector<float>(a.host.begin(), a.host.end())};
  both<float> fb{std::vector<float>(b.host.begin(), b.host.end())};
  both<float> ra{numbers<float>(random, -50, 10)}, rb{numbers<float>(random, -50, 10)};
  both<float> weight{numbers<float>(random, 1, 0.25)}, margin{numbers<float>(random, 0, 1)};
  both<std::int32_t> tokens{counts()};
  both<std::uint8_t> desirable{flags()};

  std::vector<std::int32_t> counts() {
    std::vector<std::int32_t> v;
    for (std::int64_t i = 0; i < n; ++i) v.push_back(static_cast<int>(random.integer(0, 9)));
    return v;
  }
  std::vector<std::uint8_t> flags() {
    std::vector<std::uint8_t> v;
    for (std::int64_t i = 0; i < n; ++i) v.push_back(random.chance(0.5) ? 1 : 0);
    return v;
  }
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

TEST_CASE("every unpaired loss and reference point through C, on the device as on the host") {
  const c_batch batch;
  const std::vector<prospect_observation> observed{{30, 12, 0, -1}};
  const device_array<prospect_observation> device_observed{observed};
  const device_array<prospect_device_metrics> metrics(1);
  for (const char* name : {"kto", "kto_zero"}) {
    const prospect_loss loss = c_loss(name);
    for (const bool mixed : {false, true}) {
      for (const prospect_reference point :
           {PROSPECT_GIVEN_POINT, PROSPECT_CROSS_CLASS, PROSPECT_OBSERVED, PROSPECT_BATCH_MEAN}) {
        CAPTURE(name, mixed, point);
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
