// A head case on the device, for tests: its matrices and rows, places for all results, and a matrix
// product: cuBLASLt's on a GPU, three loops of the host under an emulator, whose device memory is
// the host's.

#pragma once

#include <prospect/cuda/gemm_cublaslt.hpp>
#include <prospect/cuda/head_checks.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "catch.hpp"
#include "cpu/head_cases.hpp"
#include "cuda/device.hpp"

namespace testing {

class test_gemm {
 public:
  test_gemm() {
    if (!on_silicon()) return;
    REQUIRE(cublasLtCreate(&handle_) == CUBLAS_STATUS_SUCCESS);
    workspace_ = std::make_unique<device_array<std::byte>>(std::size_t{32} << 20);
    device_ = std::make_unique<prospect::cuda::gemm_cublaslt>(handle_, workspace_->data(),
                                                              workspace_->bytes());
  }
  ~test_gemm() {
    if (handle_ != nullptr) cublasLtDestroy(handle_);
  }
  test_gemm(const test_gemm&) = delete;
  test_gemm& operator=(const test_gemm&) = delete;

  bool on_device() const { return device_ != nullptr; }

  template <class S>
  cudaError_t operator()(const prospect::cuda::gemm_product<S>& p, cudaStream_t stream) const {
    if (on_device()) return (*device_)(p, stream);
    if (const cudaError_t e = cudaStreamSynchronize(stream)) return e;
    const auto at = [](const prospect::cuda::gemm_operand<S>& m, std::int64_t i, std::int64_t j) {
      return prospect::load(m.transposed ? m.matrix.row(j)[i] : m.matrix.row(i)[j]);
    };
    CHECK(p.a.rows() == p.c.rows);
    CHECK(p.b.columns() == p.c.columns);
    CHECK(p.a.columns() == p.b.rows());
    CHECK((*p.beta == 0 || *p.beta == 1));
    CHECK(p.a.matrix.pitch >= p.a.matrix.columns);
    CHECK(p.b.matrix.pitch >= p.b.matrix.columns);
    CHECK(p.c.pitch >= p.c.columns);
    for (std::int64_t i = 0; i < p.c.rows; ++i) {
      for (std::int64_t j = 0; j < p.c.columns; ++j) {
        float sum = 0;
        for (std::int64_t k = 0; k < p.b.rows(); ++k) sum += at(p.a, i, k) * at(p.b, k, j);
        float& c = p.c.row(i)[j];
        c = *p.alpha * sum + (*p.beta == 0 ? 0.0F : c) + (p.bias != nullptr ? p.bias[j] : 0.0F);
      }
    }
    return cudaSuccess;
  }

 private:
  cublasLtHandle_t handle_ = nullptr;
  std::unique_ptr<device_array<std::byte>> workspace_;
  std::unique_ptr<prospect::cuda::gemm_cublaslt> device_;
};

/// A matrix of the host, as it lies there, on the device.
template <class S>
class device_matrix {
 public:
  explicit device_matrix(logits_matrix<S>& host) : host_{host}, memory_(host.block()) {}

  prospect::matrix_view<S> view() const {
    const auto m = host_.view();
    return m.rows == 0 ? prospect::matrix_view<S>{}
                       : prospect::matrix_view<S>{memory_.data() + host_.first(), m.rows, m.columns,
                                                  m.pitch};
  }
  logits_matrix<S>& fetch() {
    host_.block() = memory_.host();
    return host_;
  }
  void send() const { memory_.set(host_.block()); }

 private:
  logits_matrix<S>& host_;
  device_array<S> memory_;
};

/// A case on the device, with places for all results.
template <class S>
struct on_device {
  head_case<S>& c;
  std::size_t n = c.targets.size();
  device_matrix<S> hidden{c.hidden}, weight{c.weight}, lora_a{c.lora_a}, lora_b{c.lora_b};
  device_array<S> bias{c.bias};
  device_array<std::int64_t> targets{c.targets};
  device_array<float> d_token{c.d_token}, d_entropy{c.d_entropy};
  std::vector<float> inverse = [&] {
    std::vector<float> x;
    for (std::int64_t t = 0; t < c.options.inverse_temperatures.size(); ++t) {
      x.push_back(c.options.inverse_temperatures[t]);
    }
    return x;
  }();
  device_array<float> inverse_temperatures{inverse};
  device_array<std::int64_t> scored{1};

  device_array<float> log_prob{n}, entropy{n}, squares{n}, mean{n};
  device_array<double> lse{n};
  device_array<std::uint8_t> argmax{n};
  logits_matrix<S> host_d_hidden{c.shape.tokens, c.shape.width, 3, 1};
  logits_matrix<float> host_d_weight{c.shape.vocabulary, c.shape.width, 1, 0};
  logits_matrix<float> host_d_a{c.shape.rank, c.shape.width, 4, 0};
  logits_matrix<float> host_d_b{c.lora_b.rows(), c.shape.rank, 3, 0};
  device_matrix<S> d_hidden{host_d_hidden};
  device_matrix<float> d_weight{host_d_weight}, d_a{host_d_a}, d_b{host_d_b};
  device_array<float> d_bias{c.bias.size()};

  std::int64_t count() const {
    return static_cast<std::int64_t>(n) -
           std::count(c.targets.begin(), c.targets.end(), prospect::ignored_target);
  }
  prospect::cuda::head_rows<S> rows(std::int64_t at_most = -1) const {
    prospect::lm_head<S> head{.weight = weight.view()};
    if (bias.size() > 0) head.bias = bias.input();
    if (c.shape.rank > 0) head.lora = {lora_a.view(), lora_b.view(), c.lora_scale};
    prospect::head_options options = c.options;
    if (!inverse.empty()) options.inverse_temperatures = inverse_temperatures.input();
    return {.hidden = hidden.view(),
            .head = head,
            .targets = targets.input(),
            .options = options,
            .scored_at_most = at_most < 0 ? count() : at_most,
            .scored = scored.data()};
  }
  prospect::token_outputs<float> out() const {
    return {.log_prob = log_prob.row(),
            .lse = lse.row(),
            .entropy = entropy.row(),
            .sum_squares = squares.row(),
            .mean_logit = mean.row(),
            .target_is_argmax = argmax.row()};
  }
  prospect::head_gradients<S> gradients() const {
    prospect::head_gradients<S> g{.hidden = d_hidden.view(), .weight = d_weight.view()};
    if (d_bias.size() > 0) g.bias = d_bias.row();
    if (c.shape.rank > 0) {
      g.lora_a = d_a.view();
      g.lora_b = d_b.view();
    }
    return g;
  }
};

}  // namespace testing
