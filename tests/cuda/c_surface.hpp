// The C surface on a device for tests: rows that stand on both sides, calls that are first asked
// for their scratch, and metrics that come back.

#pragma once

#include <prospect/c/prospect.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "c/surface.hpp"
#include "closeness.hpp"
#include "cuda/device.hpp"
#include "random.hpp"

namespace testing {

/// Numbers on the host and on the device.
template <class T>
struct both {
  std::vector<T> host;
  device_array<T> device;
  explicit both(std::vector<T> values) : host(std::move(values)), device{host} {}
  prospect_row row(bool on_device) const { return on_device ? c_row(device) : c_row(host); }
};

template <class T>
std::vector<T> normals(random_source& random, std::int64_t n, double mean, double spread) {
  std::vector<T> v;
  for (std::int64_t i = 0; i < n; ++i) v.push_back(static_cast<T>(random.normal(spread) + mean));
  return v;
}
/// Of tokens, with some that are none.
inline std::vector<std::int32_t> token_counts(random_source& random, std::int64_t n) {
  std::vector<std::int32_t> v;
  for (std::int64_t i = 0; i < n; ++i) v.push_back(static_cast<int>(random.integer(0, 9)));
  return v;
}
inline std::vector<std::uint8_t> flags(random_source& random, std::int64_t n) {
  std::vector<std::uint8_t> v;
  for (std::int64_t i = 0; i < n; ++i) v.push_back(random.chance(0.5) ? 1 : 0);
  return v;
}

inline void require_ok(prospect_status status, const prospect_error& error) {
  CAPTURE(prospect_status_string(status), std::string{error.message});
  REQUIRE(status == PROSPECT_OK);
}

/// Calls call(context, error) for the bytes it takes and then with exactly that many.
/// @returns the bytes.
template <class Call>
std::size_t run_on_device(const Call& call) {
  prospect_error error{};
  std::size_t bytes = 0;
  auto context = sized<prospect_context>();
  context.query = &bytes;
  require_ok(call(&context, &error), error);
  const device_array<std::byte> memory(bytes);
  context.query = nullptr;
  context.scratch = memory.data();
  context.scratch_size = bytes;
  require_ok(call(&context, &error), error);
  synchronise();
  return bytes;
}

/// Metrics that a call on the device wrote, by name.
inline c_metrics read_metrics(const prospect_loss& loss,
                              const device_array<prospect_device_metrics>& written) {
  const std::vector<prospect_device_metrics> copied = written.host();
  c_metrics m;
  prospect_error error{};
  require_ok(prospect_read_metrics(&loss, copied.data(), &m, &error), error);
  return m;
}

inline void check_close_metrics(const c_metrics& got, const c_metrics& want) {
  REQUIRE(got.metrics.size == want.metrics.size);
  CHECK(near(got.metrics.total, want.metrics.total, 1e-6L, 1e-12L));
  CHECK(got.metrics.first_nonfinite == want.metrics.first_nonfinite);
  for (std::size_t i = 0; i < static_cast<std::size_t>(got.metrics.size); ++i) {
    CAPTURE(std::string{want.room[i].name});
    CHECK(std::string{got.room[i].name} == want.room[i].name);
    CHECK(near(got.room[i].sum, want.room[i].sum, 1e-6L, 1e-12L));
    CHECK(got.room[i].count == want.room[i].count);
  }
}

/// Numbers of the device and of the host, each close to its twin.
template <class T>
void check_close(const std::vector<T>& got, const std::vector<T>& want, long double relative,
                 long double absolute) {
  REQUIRE(got.size() == want.size());
  for (std::size_t i = 0; i < got.size(); ++i) {
    CAPTURE(i, got[i], want[i]);
    CHECK(near(got[i], want[i], relative, absolute));
  }
}

}  // namespace testing
