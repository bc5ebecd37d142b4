// Metrics of the C API: by name, and from what a device wrote.
#include "metrics.hpp"

#include "losses.hpp"

#include <prospect/token_batch.hpp>

#include <algorithm>
#include <cstring>

namespace pk = prospect::kernels;

namespace {

/// What a device wrote, as the library's Metrics.
template <class Metrics>
void read_as(const prospect_device_metrics* copied, prospect_metrics* metrics) {
  static_assert(sizeof(Metrics) <= sizeof *copied);
  pk::require(copied, "copied");
  pk::require(metrics, "metrics");
  pk::check_metrics(metrics);
  Metrics m;
  std::memcpy(static_cast<void*>(&m), copied, sizeof m);
  pk::fill(metrics, m);
}

}  // namespace

prospect_status prospect_metric_get(const prospect_metrics* metrics, const char* name,
                                    double* mean) {
  prospect_status found = PROSPECT_UNKNOWN_NAME;
  const prospect_status status = pk::guard(nullptr, [&] {
    pk::require(metrics, "metrics");
    pk::check_metrics(metrics);
    pk::require(name, "name");
    pk::require(mean, "mean");
    const int32_t size = std::min(metrics->size, metrics->capacity);
    for (int32_t i = 0; i < size && found == PROSPECT_UNKNOWN_NAME; ++i) {
      const prospect_metric& m = metrics->metric[i];
      if (m.name == nullptr || std::strcmp(m.name, name) != 0) continue;
      found = m.count > 0 ? PROSPECT_OK : PROSPECT_ABSENT;
      if (found == PROSPECT_OK) *mean = m.sum / m.count;
    }
  });
  return status == PROSPECT_OK ? found : status;
}

prospect_status prospect_read_metrics(const prospect_loss* loss,
                                      const prospect_device_metrics* copied,
                                      prospect_metrics* metrics, prospect_error* error) {
  return pk::guard(error, [&] {
    pk::with_loss(loss, [&]<class L>(const L&) {
      if constexpr (prospect::paired_loss<L>) {
        read_as<prospect::paired_metrics>(copied, metrics);
      } else if constexpr (prospect::unpaired_loss<L>) {
        read_as<prospect::unpaired_metrics>(copied, metrics);
      } else {
        read_as<prospect::token_metrics>(copied, metrics);
      }
    });
  });
}

prospect_status prospect_read_value_metrics(const prospect_device_metrics* copied,
                                            prospect_metrics* metrics, prospect_error* error) {
  return pk::guard(error, [&] { read_as<prospect::value_metrics>(copied, metrics); });
}
