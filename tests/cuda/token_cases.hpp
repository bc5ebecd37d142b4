// The token kernels as a back end for the checks of tests/cpu/token_checks.hpp: matrices of host
// tests with a copy on the device, and the launchers around them.

#pragma once

#include <prospect/cuda/tokens.cuh>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "cpu/token_checks.hpp"
#include "cuda/device.hpp"

namespace testing {

namespace gpu = prospect::cuda;

/// A matrix of a host test, as it lies there, on the device.
template <class S>
class device_matrix {
 public:
  explicit device_matrix(logits_matrix<S>& host) : host_{host}, memory_(host.block()) {}

  prospect::matrix_view<S> view() const {
    const prospect::matrix_view<S> v = host_.view();
    return {memory_.data() + host_.first(), v.rows, v.columns, v.pitch};
  }
  void fetch() { host_.block() = memory_.host(); }

 private:
  logits_matrix<S>& host_;
  device_array<S> memory_;
};

/// int32 or int64 targets on the device.
class device_targets {
 public:
  explicit device_targets(const std::vector<std::int64_t>& targets) : wide_{targets} {}

  operator prospect::index_row() const { return prospect::index_row{wide_.input()}; }

 private:
  device_array<std::int64_t> wide_;
};

/// Options with their rows on the device.
class device_options {
 public:
  explicit device_options(const token_options& host)
      : host_{host},
        mask_{elements<std::uint8_t>(host.mask)},
        own_{elements<float>(host.inverse_temperatures)} {}

  operator token_options() const {
    token_options there = host_;
    there.mask = mask_.input();
    there.inverse_temperatures = own_.input();
    return there;
  }

 private:
  template <class T, class Row>
  static std::vector<T> elements(const Row& row) {
    std::vector<T> all;
    for (std::int64_t i = 0; i < row.size(); ++i) all.push_back(row[i]);
    return all;
  }

  token_options host_;
  device_array<std::uint8_t> mask_;
  device_array<float> own_;
};

/// Every output of the forward pass on the device, full of poison.
struct device_results {
  device_array<float> log_prob, entropy, sum_squares, mean_logit;
  device_array<double> lse;
  device_array<std::uint8_t> argmax;

  explicit device_results(std::int64_t n)
      : log_prob(static_cast<std::size_t>(n)),
        entropy(log_prob.size()),
        sum_squares(log_prob.size()),
        mean_logit(log_prob.size()),
        lse(log_prob.size()),
        argmax(log_prob.size()) {}

  prospect::token_outputs<float> out() const {
    return {.log_prob = log_prob.row(),
            .lse = lse.row(),
            .entropy = entropy.row(),
            .sum_squares = sum_squares.row(),
            .mean_logit = mean_logit.row(),
            .target_is_argmax = argmax.row()};
  }
  token_results<float> host() const {
    token_results<float> r{static_cast<std::int64_t>(log_prob.size())};
    r.log_prob = log_prob.host();
    r.entropy = entropy.host();
    r.sum_squares = sum_squares.host();
    r.mean_logit = mean_logit.host();
    r.lse = lse.host();
    r.argmax = argmax.host();
    return r;
  }
};

struct cuda_back_end {
  template <class S>
  token_results<float> forward(logits_matrix<S>& logits, const std::vector<std::int64_t>& targets,
                               const token_options& options) const {
    const device_matrix<S> d{logits};
    const device_targets t{targets};
    const device_options o{options};
    const device_results r{logits.rows()};
    require_success(with_scratch([&](gpu::scratch space) {
      return gpu::token_log_probs<S>(d.view(), t, r.out(), o, space, nullptr);
    }));
    return r.host();
  }

  /// `gradient` may be `logits`: in place.
  template <class S>
  void gradient(logits_matrix<S>& logits, logits_matrix<S>& gradient,
                const std::vector<std::int64_t>& targets, const token_results<float>& pass,
                const std::vector<float>& a, const std::vector<float>& b,
                const token_options& options) const {
    this->gradient(logits, gradient, targets, pass, a, b, std::vector<float>{}, options);
  }
  /// With a third for the entropy, if it is not empty.
  template <class S>
  void gradient(logits_matrix<S>& logits, logits_matrix<S>& gradient,
                const std::vector<std::int64_t>& targets, const token_results<float>& pass,
                const std::vector<float>& a, const std::vector<float>& b,
                const std::vector<float>& c, const token_options& options) const {
    device_matrix<S> to{gradient};
    const device_matrix<S> elsewhere{logits};
    const bool in_place = &logits == &gradient;
    const device_targets t{targets};
    const device_options o{options};
    const device_array<float> log_prob{pass.log_prob};
    const device_array<double> lse{pass.lse};
    const device_array<float> softmax{a};
    const device_array<float> onehot{b};
    const device_array<float> d_entropy{c};
    const device_array<float> entropy{c.empty() ? c : pass.entropy};
    require_success(gpu::logits_gradient<S>(in_place ? to.view() : elsewhere.view(), to.view(), t,
                                            log_prob.input(), lse.input(),
                                            {.softmax = softmax.input(),
                                             .onehot = onehot.input(),
                                             .d_entropy = d_entropy.input(),
                                             .entropy = entropy.input()},
                                            o, nullptr));
    synchronise();
    to.fetch();
  }

  /// With one coefficient; in place by the function that only knows that.
  template <class S>
  void gradient(logits_matrix<S>& logits, logits_matrix<S>& gradient,
                const std::vector<std::int64_t>& targets, const token_results<float>& pass,
                const std::vector<float>& d_token, const token_options& options) const {
    device_matrix<S> to{gradient};
    const device_matrix<S> elsewhere{logits};
    const device_targets t{targets};
    const device_options o{options};
    const device_array<float> log_prob{pass.log_prob};
    const device_array<double> lse{pass.lse};
    const device_array<float> d{d_token};
    require_success(&logits == &gradient
                        ? gpu::logits_gradient<S>(to.view(), t, log_prob.input(), lse.input(),
                                                  d.input(), o, nullptr)
                        : gpu::logits_gradient<S>(elsewhere.view(), to.view(), t, log_prob.input(),
                                                  lse.input(), d.input(), o, nullptr));
    synchronise();
    to.fetch();
  }

  /// The logits become the gradient of their log-probs.
  template <class S>
  token_results<float> deferred(logits_matrix<S>& logits, const std::vector<std::int64_t>& targets,
                                const token_options& options) const {
    device_matrix<S> d{logits};
    const device_targets t{targets};
    const device_options o{options};
    const device_results r{logits.rows()};
    require_success(gpu::token_log_probs_and_gradient<S>(d.view(), t, r.out(), o, nullptr));
    synchronise();
    d.fetch();
    return r.host();
  }

  template <class S>
  std::vector<prospect::vocabulary_partial> partials(logits_matrix<S>& logits,
                                                     const std::vector<std::int64_t>& targets,
                                                     const token_options& options) const {
    const device_matrix<S> d{logits};
    const device_targets t{targets};
    const device_options o{options};
    const device_array<prospect::vocabulary_partial> p(targets.size());
    require_success(with_scratch([&](gpu::scratch space) {
      return gpu::vocabulary_partials<S>(d.view(), t, p.row(), o, true, space, nullptr);
    }));
    return p.host();
  }
};
inline constexpr cuda_back_end on_cuda;

/// The same bits, but for which NaN it is: a device has one, a constant may be another.
template <class T>
bool same_numbers(const std::vector<T>& a, const std::vector<T>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const T& x, const T& y) {
    return same_bits(x, y) ||
           (std::isnan(static_cast<double>(x)) && std::isnan(static_cast<double>(y)));
  });
}
inline bool same_results(const token_results<float>& a, const token_results<float>& b) {
  return same_numbers(a.log_prob, b.log_prob) && same_numbers(a.lse, b.lse) &&
         same_numbers(a.entropy, b.entropy) && same_numbers(a.sum_squares, b.sum_squares) &&
         same_numbers(a.mean_logit, b.mean_logit) && same_bits(a.argmax, b.argmax);
}

}  // namespace testing
