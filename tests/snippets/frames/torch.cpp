// frame of include/prospect/adapters/torch.hpp, with on_torch::shift_targets
#include <prospect/adapters/torch.hpp>
#include <prospect/prospect.hpp>

#include <ATen/ATen.h>

#include "frame.hpp"

int main() {
  const at::Tensor labels = at::randint(0, 7, {2, 5}, at::kLong);
  const at::Tensor logits = at::randn({2, 5, 7}).requires_grad_();
  const at::Tensor reference = at::zeros({2}, at::kDouble);
  const at::Tensor desirable = at::ones({2}, at::kBool);
  const prospect::reference_point z = prospect::zero_point();
  // here
  REQUIRE(logits.grad().abs().sum().item<double>() > 0);
  REQUIRE(frame::near(logits.grad().select(1, 4).abs().max().item<double>(), 0));  // no target
}
