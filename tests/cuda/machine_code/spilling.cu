// Wrong on purpose: an array that is indexed at run time, and therefore lies in local memory; and
// loads of one number at a time; and a division that --use_fast_math approximates.
__global__ void forward_kernel(const float* x, float* y, int n) {
  float window[64];
  for (int i = 0; i < 64; ++i) window[(i * n) % 64] = x[i];
  y[threadIdx.x] = window[(threadIdx.x * n) % 64] / x[n];
}
