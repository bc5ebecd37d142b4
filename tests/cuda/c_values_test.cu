// The clipped value loss through C, on the device as on the host: every kind of mask and row, one
// launch and several, counts on the device, and what is not finite.
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "cuda/c_surface.hpp"
#include "random.hpp"

namespace {

using testing::c_row;
using testing::device_array;
using testing::sized;

struct value_case {
  std::vector<double> value, old_value;
  std::vector<float> returns, loss, mask;
  std::vector<double> d_value;
  device_array<double> device_value, device_old, device_d;
  device_array<float> device_returns, device_loss, device_mask;

  explicit value_case(std::size_t n)
      : value(n),
        old_value(n),
        returns(n),
        loss(n, 7),
        mask(n),
        d_value(n, 7),
        device_value(n),
        device_old(n),
        device_d(n),
        device_returns(n),
        device_loss(n),
        device_mask(n) {
    testing::random_source random{802};
    for (std::size_t i = 0; i < n; ++i) {
      value[i] = random.normal(1);
      old_value[i] = value[i] + random.normal(0.3);
      returns[i] = static_cast<float>(random.normal(1));
      mask[i] = random.chance(0.8) ? 1 : 0;
    }
    if (n > 3) value[3] = std::numeric_limits<double>::quiet_NaN();
    device_value.set(value);
    device_old.set(old_value);
    device_returns.set(returns);
    device_mask.set(mask);
  }

  prospect_values args(bool device) {
    auto v = sized<prospect_values>();
    v.value = device ? c_row(device_value) : c_row(value);
    v.old_value = device ? c_row(device_old) : c_row(old_value);
    v.returns = device ? c_row(device_returns) : c_row(returns);
    v.mask = device ? c_row(device_mask) : c_row(mask);
    v.loss = device ? c_row(device_loss) : c_row(loss);
    v.d_value = device ? c_row(device_d) : c_row(d_value);
    return v;
  }
};

}  // namespace

TEST_CASE("the clipped value loss through C, on the device as on the host") {
  const std::vector<double> count{11};
  const device_array<double> device_count{count};
  const device_array<prospect_device_metrics> metrics(1);
  const auto check = [&](std::size_t n, std::int32_t normaliser, bool masked) {
    CAPTURE(n, normaliser, masked);
    value_case c{n};
    testing::c_metrics want, got;
    const auto args = [&](bool device) {
      prospect_values v = c.args(device);
      v.normaliser = normaliser;
      v.count_at = device ? device_count.data() : count.data();
      if (!masked) v.mask = {};
      return v;
    };
    const prospect_values host = args(false), device = args(true);
    prospect_error error{};
    testing::require_ok(prospect_value_loss_cpu(&host, &want, nullptr, &error), error);
    testing::run_on_device([&](const prospect_context* on, prospect_error* e) {
      return prospect_value_loss_cuda(&device, metrics.data(), on, e);
    });
    testing::check_close(c.device_loss.host(), c.loss, 4e-7L, 1e-30L);
    testing::check_close(c.device_d.host(), c.d_value, 1e-14L, 1e-30L);
    const std::vector<prospect_device_metrics> copied = metrics.host();
    testing::require_ok(prospect_read_value_metrics(copied.data(), &got, &error), error);
    testing::check_close_metrics(got, want);
  };
  for (const std::size_t n : {1, 2, 700}) {
    for (const bool masked : {false, true}) check(n, PROSPECT_MEAN, masked);
  }
  check(9000, PROSPECT_MEAN, true);
  check(9000, PROSPECT_OVER_AT, false);

  value_case c{8};
  prospect_values wrong = c.args(true);
  wrong.old_value.size = 7;
  prospect_error error{};
  CHECK(testing::refused(prospect_value_loss_cuda(&wrong, nullptr, nullptr, &error),
                         PROSPECT_INVALID_ARGUMENT, error, "old_value"));
  wrong = c.args(true);
  wrong.cliprange_value = -1;
  CHECK(testing::refused(prospect_value_loss_cuda(&wrong, nullptr, nullptr, &error),
                         PROSPECT_INVALID_ARGUMENT, error, "cliprange_value"));
}
