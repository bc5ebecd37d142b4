// The clipped value loss against its textbook form in long double and finite differences: both
// branches and their seams, masks, rows of every type, normalisers, what is not finite.

#include <prospect/cpu/values.hpp>
#include <prospect/losses/value/clipped_value.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "catch.hpp"
#include "closeness.hpp"
#include "random.hpp"
#include "refusals.hpp"

namespace {

using prospect::clipped_value;
using prospect::normaliser;
using prospect::value_batch;
using testing::near;

long double textbook_value_loss(double v, double old_value, double returns, double range) {
  const long double held = std::clamp<long double>(v, static_cast<long double>(old_value) - range,
                                                   static_cast<long double>(old_value) + range);
  const long double off = static_cast<long double>(v) - returns, held_off = held - returns;
  return std::max(off * off, held_off * held_off) / 2;
}

template <class S>
struct value_rows {
  std::vector<S> value, old_value, returns, loss, d_value;
  std::vector<std::uint8_t> mask;

  explicit value_rows(std::size_t n)
      : value(n), old_value(n), returns(n), loss(n, S(-1)), d_value(n, S(-1)), mask(n, 1) {}
  value_batch in() const {
    return {.value = value, .old_value = old_value, .returns = returns, .mask = mask};
  }
  prospect::value_outputs out() { return {.loss = loss, .d_value = d_value}; }
};

template <class S>
value_rows<S> random_values(std::int64_t n) {
  testing::random_source random{73};
  value_rows<S> rows(static_cast<std::size_t>(n));
  for (std::size_t i = 0; i < rows.value.size(); ++i) {
    rows.value[i] = static_cast<S>(random.normal(1));
    rows.old_value[i] = static_cast<S>(rows.value[i] + random.normal(0.3));
    rows.returns[i] = static_cast<S>(random.normal(1));
    rows.mask[i] = random.chance(0.8) ? 1 : 0;
  }
  return rows;
}

template <class S>
void check_values(std::int64_t n, long double relative) {
  value_rows<S> rows = random_values<S>(n);
  const clipped_value loss;
  const auto metrics = prospect::cpu::evaluate(loss, rows.in(), rows.out(), normaliser::over(8));
  long double sum = 0;
  double scored = 0;
  int held = 0;
  for (std::size_t i = 0; i < rows.value.size(); ++i) {
    CAPTURE(n, i, rows.value[i], rows.old_value[i], rows.returns[i]);
    if (rows.mask[i] == 0) {
      CHECK((rows.loss[i] == 0 && rows.d_value[i] == 0));
      continue;
    }
    const auto at = [&](double v) {
      return textbook_value_loss(v, rows.old_value[i], rows.returns[i], loss.cliprange_value);
    };
    const double v = rows.value[i], step = 0x1p-20;
    const long double slope = (at(v + step) - at(v - step)) / (2 * step);
    held += slope == 0 ? 1 : 0;
    scored += 1;
    sum += at(v);
    CHECK(near(rows.loss[i], at(v), relative, relative));
    CHECK(near(rows.d_value[i], slope / 8, 1e-5L, 1e-6L));
  }
  CHECK(metrics.loss.count == scored);
  CHECK(near(metrics.loss.sum, sum, relative));
  CHECK(near(metrics.total, sum / 8, relative));
  CHECK(metrics.nonfinite.sum == 0);
  if (n > 100) CHECK((held > 5 && held < scored - 5));  // both branches are there
}

}  // namespace

TEST_CASE("the clipped value loss is its textbook form", "[values]") {
  for (const std::int64_t n : {1, 3, 511, 513, 2000}) check_values<double>(n, 1e-12L);
  check_values<float>(1000, 4e-6L);
}

TEST_CASE("seams of the clipped value loss", "[values]") {
  const auto at = [](double v, double old_value, double returns) {
    return prospect::differentiate(clipped_value{.cliprange_value = 0.25},
                                   prospect::value_estimate<double>{v, old_value, returns});
  };
  // Inside, and at either bound, the full slope; beyond, none where it moved from where it was to
  // the return, and all of it where the return is still farther off.
  CHECK(at(0.5, 0.5, 2).d_value == -1.5);
  CHECK(at(0.75, 0.5, 2).d_value == -1.25);
  CHECK(at(0.25, 0.5, 2).d_value == -1.75);
  CHECK(at(1, 0.5, 2).d_value == 0);
  CHECK(at(1, 0.5, 2).loss == 1.25 * 1.25 / 2);
  CHECK(at(1, 0.5, -1).d_value == 2);
  // Both as far from the return, on either side of it: the slope of the value itself.
  CHECK(at(1, 0.5, 0.875).d_value == 0.125);
  CHECK(at(0x1p100, 0, 1).loss == 0x1p199);
}

TEST_CASE("masked and spoilt value estimates", "[values]") {
  constexpr double bad = std::numeric_limits<double>::quiet_NaN();
  for (const std::int64_t n : {7, 40000}) {
    value_rows<double> rows = random_values<double>(n);
    std::fill(rows.mask.begin(), rows.mask.end(), std::uint8_t{1});
    rows.mask[2] = 0;
    value_rows<double> with = rows;
    prospect::cpu::evaluate(clipped_value{}, rows.in(), rows.out(), normaliser::mean());
    with.value[2] = with.old_value[2] = with.returns[2] = bad;  // not read
    with.returns[5] = bad;
    with.value[6] = std::numeric_limits<double>::infinity();
    prospect::serial_executor alone;
    const auto metrics =
        prospect::cpu::evaluate(clipped_value{}, with.in(), with.out(), normaliser::mean(), alone);
    CHECK(metrics.nonfinite.sum == 2);
    CHECK(metrics.first_nonfinite == 5);
    CHECK(metrics.loss.count == static_cast<double>(n - 1));
    CHECK(std::isnan(with.loss[5]));
    for (std::size_t i = 0; i < rows.loss.size(); ++i) {
      if (i == 5 || i == 6) continue;
      CHECK((with.loss[i] == rows.loss[i] && with.d_value[i] == rows.d_value[i]));
    }
    std::fill(with.mask.begin(), with.mask.end(), std::uint8_t{0});
    const auto none = prospect::cpu::evaluate(clipped_value{}, with.in(), with.out());
    CHECK((none.loss.count == 0 && none.total == 0 && !none.loss.present()));
    CHECK(with.d_value == std::vector<double>(static_cast<std::size_t>(n)));
  }
  CHECK(prospect::cpu::evaluate(clipped_value{}, value_batch{}, {}).total == 0);
}

TEST_CASE("calls on value estimates that make no sense are refused by name", "[values]") {
  value_rows<float> rows = random_values<float>(6);
  const std::vector<float> few(5);
  const auto refused = [&](const char* name, value_batch in, const clipped_value& loss = {}) {
    CHECK(testing::refuses(name, [&] { prospect::cpu::evaluate(loss, in, rows.out()); }));
  };
  value_batch in = rows.in();
  refused("cliprange_value", in, {.cliprange_value = 0});
  in.old_value = few;
  refused("old_value", in);
  in = rows.in();
  in.returns = {};
  refused("returns", in);
  in = rows.in();
  in.mask = prospect::mask_row{few.data(), 5};
  refused("mask", in);
  CHECK(testing::refuses("d_value", [&] {
    prospect::cpu::evaluate(clipped_value{}, rows.in(),
                            {.d_value = prospect::any_row{rows.d_value.data(), 6, 0}});
  }));
  CHECK(testing::refuses("normaliser", [&] {
    prospect::cpu::evaluate(clipped_value{}, rows.in(), rows.out(), normaliser::over(0));
  }));
}
