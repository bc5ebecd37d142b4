// frame of README.md, with gpu::evaluate(prospect::kto{}, batch, gpu::mismatched_batch
#include <cstdint>
#include <vector>

#include "gpu_frame.hpp"

using prospect::bfloat16;

int main() {
  // Two completions of two tokens each, from a vocabulary of four.
  const auto logits =
      prospect::matrix_view<bfloat16>{on_device(std::vector<bfloat16>(16)).data(), 4, 4};
  const auto token_ids = on_device(std::vector<std::int32_t>{0, 1, 2, 3});
  const prospect::index_row targets{prospect::strided_span<const std::int32_t>{token_ids}};
  const auto layout = prospect::sequence_layout::padded(2, 2);
  const auto log_prob = on_device(std::vector<float>(4)),
             d_token = on_device(std::vector<float>(4));
  const auto lse = on_device(std::vector<double>(4));
  const auto sums = on_device(std::vector<double>(2)), d_policy = on_device(std::vector<double>(2));
  const auto reference = on_device(std::vector<double>{-3, -2});
  const auto kl_policy = on_device(std::vector<double>{-5, -6});
  const auto kl_reference = on_device(std::vector<double>{-6, -6});
  const auto desirable = on_device(std::vector<std::uint8_t>{1, 0});
  auto* const metrics = on_device(std::vector<prospect::unpaired_metrics>(1)).data();
  const auto memory = on_device(std::vector<char>(1 << 20));
  const prospect::cuda::scratch space{memory.data(), static_cast<std::size_t>(memory.size())};
  const prospect::unpaired_batch<double> batch{
      .policy = sums, .reference = reference, .desirable = desirable};
  const prospect::unpaired_outputs<double> outputs{.d_policy = d_policy};
  const cudaStream_t stream = nullptr;
  // here
  REQUIRE(cudaDeviceSynchronize() == cudaSuccess);
  // Logits of 0: log p = -log 4 each; z = 1/2; the desirable one is pushed up.
  REQUIRE(frame::near(first_of(sums.data()), -2 * std::log(4.0)));
  REQUIRE(first_of(metrics).kl.mean() == 0.5);
  const double d = first_of(d_policy.data());
  REQUIRE(d < 0);
  REQUIRE(std::abs(prospect::load(first_of(logits.data)) - 0.75 * d) <= 0.004 * std::abs(d));
}
