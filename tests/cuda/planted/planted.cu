// What planted defects are looked for with: every kernel over logits and the sequence kernel once,
// on shapes with a tail, several tiles, misaligned rows and rows that do not count, against double.
// Returns 0 if all is well.
#include <prospect/cuda/sequences.cuh>
#include <prospect/cuda/tokens.cuh>
#include <prospect/losses/paired/dpo.hpp>

#include <cmath>
#include <cstdint>
#include <vector>

#include "planted.hpp"

namespace {

namespace gpu = prospect::cuda;

using planted::demand;
using planted::on_device;
using planted::on_host;

bool close(double got, double want) { return std::abs(got - want) <= 1e-5 * (1 + std::abs(want)); }

constexpr float poison = -12345;

void check_tokens(std::int64_t columns) {
  const std::int64_t rows = 4;
  const std::int64_t pitch = columns + 3;
  const std::int64_t first = 1;  // at no multiple of 16 bytes
  const std::vector<std::int64_t> targets{columns - 1, -100, 0, columns / 2};
  const auto n = static_cast<std::size_t>(rows);
  // The last row ends where the memory does.
  std::vector<float> x(static_cast<std::size_t>(first + (rows - 1) * pitch + columns), poison);
  const auto at = [&](std::int64_t t, std::int64_t j) {
    return static_cast<std::size_t>(first + t * pitch + j);
  };
  for (std::int64_t t = 0; t < rows; ++t) {
    for (std::int64_t j = 0; j < columns; ++j) {
      x[at(t, j)] = t == 1 ? NAN : static_cast<float>(3 * std::sin(0.37 * double(j * (t + 1))));
    }
  }
  float* const logits = on_device(x);
  float* const unread = on_device(std::vector<float>(x.size(), poison));
  const prospect::matrix_view<float> view{logits + first, rows, columns, pitch};
  const prospect::strided_span<const std::int64_t> y{on_device(targets), rows};
  const prospect::strided_span<float> log_prob{on_device(std::vector<float>(n, poison)), rows};
  const prospect::strided_span<double> lse{on_device(std::vector<double>(n, poison)), rows};
  const prospect::strided_span<const float> minus_one{on_device(std::vector<float>(n, -1)), rows};
  const prospect::token_outputs<float> out{.log_prob = log_prob, .lse = lse};

  std::size_t bytes = 0;
  demand(gpu::token_log_probs<float>(view, y, out, {}, gpu::scratch::size_into(bytes), nullptr));
  std::byte* const memory = on_device(std::vector<std::byte>(bytes + 1));
  demand(gpu::token_log_probs<float>(view, y, out, {}, {memory, bytes}, nullptr));
  const auto kept = on_host(log_prob.data(), n);
  // Somewhere else, in place, and at once.
  demand(gpu::logits_gradient<float>(view, {unread, rows, columns, pitch}, y, log_prob, lse,
                                     {.softmax = minus_one, .onehot = minus_one}, {}, nullptr));
  const auto elsewhere = on_host(unread, x.size());
  float* const deferred = on_device(x);
  demand(gpu::logits_gradient<float>(view, y, log_prob, lse,
                                     {on_device(std::vector<float>(n, 1)), rows}, {}, nullptr));
  const auto in_place = on_host(logits, x.size());
  demand(gpu::token_log_probs_and_gradient<float>({deferred + first, rows, columns, pitch}, y, out,
                                                  {}, nullptr));
  const auto at_once = on_host(deferred, x.size());
  const auto again = on_host(log_prob.data(), n);

  for (std::int64_t t = 0; t < rows; ++t) {
    const auto i = static_cast<std::size_t>(t);
    const bool scored = targets[i] >= 0;
    double sum = 0;
    for (std::int64_t j = 0; j < columns; ++j) sum += std::exp(double(x[at(t, j)]));
    const double want = scored ? double(x[at(t, targets[i])]) - std::log(sum) : 0;
    demand(close(kept[i], want) && close(again[i], want), "log-prob");
    for (std::int64_t j = 0; j < columns; ++j) {
      const double p = scored ? std::exp(double(x[at(t, j)])) / sum : 0;
      const double gradient = (j == targets[i] ? 1 : 0) - p;
      demand(close(in_place[at(t, j)], gradient), "gradient in place");
      demand(close(at_once[at(t, j)], gradient), "deferred gradient");
      demand(close(elsewhere[at(t, j) - 1], gradient), "gradient elsewhere");
    }
    for (std::int64_t j = columns; t + 1 < rows && j < pitch; ++j) {
      demand(in_place[at(t, j)] == poison && at_once[at(t, j)] == poison, "padding");
    }
  }
}

void check_sequences(std::int64_t n) {
  std::vector<float> chosen;
  std::vector<std::int32_t> tokens;
  double sum = 0;
  double counted = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    chosen.push_back(static_cast<float>(20 * std::sin(double(i))));
    tokens.push_back(i % 5 == 0 ? 0 : 3);
    if (tokens.back() == 0) continue;
    sum += std::log1p(std::exp(-0.1 * double(chosen.back())));
    counted += 1;
  }
  const auto size = static_cast<std::size_t>(n);
  const prospect::strided_span<const float> policy{on_device(chosen), n};
  const prospect::strided_span<const float> zero{on_device(std::vector<float>(size)), n};
  const prospect::strided_span<const std::int32_t> t{on_device(tokens), n};
  const prospect::strided_span<float> d{on_device(std::vector<float>(size, poison)), n};
  auto* const metrics = on_device(std::vector<prospect::paired_metrics>(1));
  const gpu::detail::paired_job<float, prospect::dpo> job{{},
                                                          {.policy_chosen = policy,
                                                           .policy_rejected = zero,
                                                           .reference_chosen = zero,
                                                           .reference_rejected = zero,
                                                           .chosen_tokens = t},
                                                          {.d_policy_chosen = d},
                                                          prospect::normaliser::mean(),
                                                          metrics};
  using scheme = gpu::detail::sequence_scheme;
  std::size_t bytes = 0;
  demand(gpu::detail::run(job, scheme::grid, gpu::scratch::size_into(bytes), nullptr));
  const std::vector<std::byte> dirt(bytes, std::byte{0x5a});
  for (const scheme s : {scheme::block, scheme::cluster, scheme::grid}) {
    demand(gpu::detail::run(job, s, {on_device(dirt), bytes}, nullptr));
    const auto m = on_host(metrics, 1)[0];
    demand(close(m.loss.sum, sum) && m.loss.count == counted, "sum of losses");
    demand(close(m.total, sum / counted), "mean of losses");
    const auto slope = on_host(d.data(), size);
    for (std::size_t i = 0; i < size; ++i) {
      const double want = tokens[i] == 0 ? 0 : -0.1 / (1 + std::exp(0.1 * double(chosen[i])));
      demand(close(slope[i] * counted, want), "coefficient");
    }
  }
}

}  // namespace

int main() {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) return 77;
  check_tokens(7);
  check_tokens(2 * gpu::detail::tile_columns<float> + 5);
  check_tokens(33 * gpu::detail::tile_columns<float> + 2);
  check_sequences(2 * 512 + 3);   // a row a thread
  check_sequences(2 * 2048 + 3);  // four
}
