// A user's kernel that evaluates a loss and its gradient.
#include <prospect/losses/differentiate.hpp>
#include <prospect/losses/paired/dpo.hpp>

__global__ void coefficients(prospect::dpo loss, const prospect::pair<float>* pairs, int n,
                             float* d_chosen) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < n) d_chosen[i] = prospect::differentiate(loss, pairs[i]).d_chosen;
}
