// Two rows through a head in bf16, with oneDNN's products.
#include <prospect/cpu/gemm_onednn.hpp>
#include <prospect/cpu/head.hpp>

#include <cmath>
#include <cstdint>
#include <vector>

int main() {
  using prospect::bfloat16;
  const std::vector<bfloat16> hidden(2 * 3, prospect::store<bfloat16>(1.0F));
  const std::vector<bfloat16> weight(4 * 3, prospect::store<bfloat16>(0.5F));
  const std::vector<std::int64_t> targets{1, 3};
  std::vector<float> log_prob(2);
  prospect::cpu::head_workspace<float> workspace{1 << 20};
  prospect::cpu::head_log_probs<bfloat16>({hidden.data(), 2, 3}, {.weight = {weight.data(), 4, 3}},
                                          targets, {.log_prob = log_prob}, workspace, false, {},
                                          prospect::cpu::onednn_gemm{});
  for (const float x : log_prob) {
    if (!(std::abs(x + std::log(4.0F)) < 1e-6F)) return 1;
  }
}
