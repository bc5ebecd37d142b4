// What planted defects of the head path are looked for with: a trained head with kept gradients,
// without, and in one go, on tokens of which some are not scored and some take no part, against
// double. Products are loops of the host, whose memory an emulator's device has. Returns 0 if all
// is well.
#include <prospect/cuda/head.cuh>

#include <cmath>
#include <cstdint>
#include <vector>

#include "planted.hpp"

namespace {

namespace gpu = prospect::cuda;

using planted::demand;
using planted::on_device;
using planted::on_host;

bool close(double got, double want) { return std::abs(got - want) <= 1e-4 * (1 + std::abs(want)); }

struct loops {
  cudaError_t operator()(const gpu::gemm_product<float>& p, cudaStream_t stream) const {
    if (const cudaError_t e = cudaStreamSynchronize(stream)) return e;
    const auto at = [](const gpu::gemm_operand<float>& m, std::int64_t i, std::int64_t j) {
      return m.transposed ? m.matrix.row(j)[i] : m.matrix.row(i)[j];
    };
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
};

constexpr std::int64_t tokens = 160, width = 3, vocabulary = 11;
constexpr float poison = -12345;

/// Not scored; scored, but without a coefficient and not a number; or an ordinary one.
bool scored(std::int64_t t) { return t % 5 != 2; }
bool takes_part(std::int64_t t) { return scored(t) && t % 7 != 3; }
double coefficient(std::int64_t t) { return takes_part(t) ? std::cos(double(t)) : 0; }

struct answer {
  std::vector<double> log_prob, d_hidden, d_weight, d_bias;
};

void check() {
  const auto n = static_cast<std::size_t>(tokens);
  std::vector<float> hidden, weight, bias, d_token;
  std::vector<std::int64_t> targets;
  for (std::int64_t t = 0; t < tokens; ++t) {
    for (std::int64_t k = 0; k < width; ++k) {
      hidden.push_back(takes_part(t) ? float(std::sin(0.7 * double(t * width + k))) : NAN);
    }
    targets.push_back(scored(t) ? t % vocabulary : -100);
    d_token.push_back(float(coefficient(t)));
  }
  for (std::int64_t i = 0; i < vocabulary * width; ++i) {
    weight.push_back(float(2 * std::sin(1.3 * double(i))));
  }
  for (std::int64_t v = 0; v < vocabulary; ++v) bias.push_back(float(std::cos(2.1 * double(v))));

  answer want{std::vector<double>(n), std::vector<double>(n * width),
              std::vector<double>(vocabulary * width), std::vector<double>(vocabulary)};
  std::int64_t count = 0;
  for (std::int64_t t = 0; t < tokens; ++t) {
    count += scored(t) ? 1 : 0;
    if (!takes_part(t)) continue;
    const auto at = [](std::int64_t i) { return static_cast<std::size_t>(i); };
    double z[vocabulary], sum = 0;
    for (std::int64_t v = 0; v < vocabulary; ++v) {
      z[v] = double(bias[at(v)]);
      for (std::int64_t k = 0; k < width; ++k) {
        z[v] += double(hidden[at(t * width + k)]) * double(weight[at(v * width + k)]);
      }
      sum += std::exp(z[v]);
    }
    const std::int64_t y = targets[at(t)];
    want.log_prob[at(t)] = z[y] - std::log(sum);
    for (std::int64_t v = 0; v < vocabulary; ++v) {
      const double d = coefficient(t) * ((v == y ? 1 : 0) - std::exp(z[v]) / sum);
      want.d_bias[at(v)] += d;
      for (std::int64_t k = 0; k < width; ++k) {
        want.d_hidden[at(t * width + k)] += d * double(weight[at(v * width + k)]);
        want.d_weight[at(v * width + k)] += d * double(hidden[at(t * width + k)]);
      }
    }
  }

  const gpu::head_rows<float> rows{
      .hidden = {on_device(hidden), tokens, width},
      .head = {.weight = {on_device(weight), vocabulary, width},
               .bias = {on_device(bias), vocabulary}},
      .targets = prospect::strided_span<const std::int64_t>{on_device(targets), tokens},
      .scored_at_most = count};
  const prospect::strided_span<const float> d{on_device(d_token), tokens};
  const std::size_t bytes = std::size_t{1} << 17;
  const gpu::scratch space{on_device(std::vector<std::byte>(bytes, std::byte{0x5a})), bytes};
  for (const int way : {0, 1, 2}) {  // kept, computed again, at once
    const prospect::strided_span<float> log_prob{on_device(std::vector<float>(n, poison)), tokens};
    const prospect::strided_span<double> lse{on_device(std::vector<double>(n, poison)), tokens};
    const prospect::token_outputs<float> out{.log_prob = log_prob, .lse = lse};
    const auto place = [](std::int64_t size) {
      return on_device(std::vector<float>(static_cast<std::size_t>(size), poison));
    };
    const prospect::head_gradients<float> to{
        .hidden = {place(tokens * width), tokens, width},
        .weight = {place(vocabulary * width), vocabulary, width},
        .bias = {place(vocabulary), vocabulary}};
    if (way == 2) {
      const auto ready = [](std::int64_t, std::int64_t, cudaStream_t) { return cudaSuccess; };
      demand(gpu::head_step<float>(rows, prospect::sequence_layout::padded(4, tokens / 4), 2, out,
                                   ready, d, to, loops{}, space, nullptr));
    } else {
      gpu::head_ticket ticket;
      demand(gpu::head_log_probs<float>(rows, out, loops{}, space, nullptr,
                                        way == 0 ? &ticket : nullptr));
      demand((ticket.kept > 0) == (way == 0), "gradients that are kept");
      demand(
          gpu::head_gradient<float>(rows, log_prob, lse, d, to, ticket, loops{}, space, nullptr));
    }
    const auto same = [](const auto& got, const std::vector<double>& right, const char* what) {
      for (std::size_t i = 0; i < right.size(); ++i) demand(close(double(got[i]), right[i]), what);
    };
    const auto l = on_host(log_prob.data(), n);
    for (std::int64_t t = 0; t < tokens; ++t) {
      const auto i = static_cast<std::size_t>(t);
      const bool nan = scored(t) && !takes_part(t);
      demand(nan ? std::isnan(l[i]) : close(double(l[i]), want.log_prob[i]), "log-prob");
    }
    same(on_host(to.hidden.data, want.d_hidden.size()), want.d_hidden, "gradient of hidden");
    same(on_host(to.weight.data, want.d_weight.size()), want.d_weight, "gradient of weight");
    same(on_host(to.bias.data(), want.d_bias.size()), want.d_bias, "gradient of bias");
  }
}

}  // namespace

int main() {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) return 77;
  check();
}
