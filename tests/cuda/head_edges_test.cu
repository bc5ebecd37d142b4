// The head path on the device where it is hard: nothing to do, one of everything, what takes no
// part, numbers at the end of their range, offsets and tickets that lie, and graphs.
#include <prospect/cuda/head.cuh>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <type_traits>
#include <vector>

#include "catch.hpp"
#include "closeness.hpp"
#include "cpu/head_cases.hpp"
#include "cuda/device.hpp"
#include "cuda/head_device.hpp"
#include "cuda/head_passes.hpp"
#include "random.hpp"

namespace testing {

/// Products as a kernel, which a graph can hold wherever kernels run.
static __global__ void product_kernel(prospect::cuda::gemm_product<float> p, std::int64_t inner) {
  const auto at = [](const prospect::cuda::gemm_operand<float>& m, std::int64_t i, std::int64_t j) {
    return m.transposed ? m.matrix.row(j)[i] : m.matrix.row(i)[j];
  };
  const std::int64_t i = blockIdx.x;
  for (std::int64_t j = threadIdx.x; j < p.c.columns; j += blockDim.x) {
    float sum = 0;
    for (std::int64_t k = 0; k < inner; ++k) sum += at(p.a, i, k) * at(p.b, k, j);
    float& c = p.c.row(i)[j];
    c = *p.alpha * sum + (*p.beta == 0 ? 0.0F : c) + (p.bias != nullptr ? p.bias[j] : 0.0F);
  }
}

}  // namespace testing

namespace {

namespace gpu = prospect::cuda;
using prospect::bfloat16;
using prospect::float16;
using prospect::ignored_target;
using namespace testing;

TEST_CASE(
    "a batch without tokens or sequences leaves gradients of 0, and says that none is scored") {
  random_source random{1308};
  const test_gemm multiply;
  head_case<bfloat16> c{random, {6, 16, 40, 2}, true};
  const auto all = [](const auto& values, float what) {
    return std::all_of(values.begin(), values.end(),
                       [&](auto x) { return prospect::load(x) == what; });
  };
  for (const bool accumulate : {false, true}) {
    CAPTURE(accumulate);
    on_device<bfloat16> d{c};
    const auto gradients_are = [&](float what) {
      CHECK(all(d.d_weight.fetch().elements(), what));
      CHECK(all(d.d_bias.host(), what));
      CHECK(all(d.d_a.fetch().elements(), what));
      CHECK(all(d.d_b.fetch().elements(), what));
      CHECK(d.host_d_weight.padding_untouched());
    };
    const auto fill = [&](float what) {
      const auto matrix = [&](auto& to) {
        auto& host = to.fetch();
        for (std::int64_t i = 0; i < host.rows(); ++i) host.fill_row(i, [&](auto) { return what; });
        to.send();
      };
      matrix(d.d_weight);
      matrix(d.d_a);
      matrix(d.d_b);
      d.d_bias.set(std::vector<float>(d.d_bias.size(), what));
    };
    auto gradients = d.gradients();
    gradients.accumulate = accumulate;
    gpu::head_ticket ticket;

    auto none = d.rows(0);
    none.hidden.rows = 0;
    none.targets = {};
    gradients.hidden = {};
    fill(3);
    require_success(testing::with_scratch([&](gpu::scratch space) {
      return gpu::head_log_probs<bfloat16>(none, {}, multiply, space, nullptr, &ticket);
    }));
    CHECK(d.scored.host()[0] == 0);
    d.scored.set({7});
    require_success(testing::with_scratch([&](gpu::scratch space) {
      return gpu::head_gradient<bfloat16>(none, {}, {}, prospect::strided_span<const float>{},
                                          gradients, {}, multiply, space, nullptr);
    }));
    CHECK(d.scored.host()[0] == 0);
    gradients_are(accumulate ? 3 : 0);

    // Tokens, but of no sequence.
    gradients.hidden = d.d_hidden.view();
    fill(3);
    const device_array<std::int64_t> offsets(std::vector<std::int64_t>{0});
    require_success(testing::with_scratch([&](gpu::scratch space) {
      return gpu::head_step<bfloat16>(
          d.rows(), prospect::sequence_layout::packed(offsets.input()), 1, d.out(),
          [](std::int64_t, std::int64_t, cudaStream_t) { return cudaErrorUnknown; },
          d.d_token.input(), gradients, multiply, space, nullptr);
    }));
    CHECK(d.scored.host()[0] == 0);
    CHECK(all(d.log_prob.host(), 0));
    CHECK(all(d.d_hidden.fetch().elements(), 0));
    gradients_are(accumulate ? 3 : 0);
  }
}

TEST_CASE("a matrix of one row has no pitch, of the head's as of any other") {
  random_source random{1310};
  const test_gemm multiply;
  head_case<float> c{random, {1, 5, 1, 1}, true, {}, 0};
  const head_answer want{c};
  on_device<float> d{c};
  auto rows = d.rows();
  auto gradients = d.gradients();
  for (auto* m : {&rows.hidden, &rows.head.weight, &rows.head.lora.a, &rows.head.lora.b}) {
    m->pitch = 0;
  }
  for (auto* m : {&gradients.hidden, &gradients.weight, &gradients.lora_a, &gradients.lora_b}) {
    m->pitch = -1;
  }
  score(d, rows, multiply);
  differentiate(d, rows, gradients, multiply);
  check_scores(d, want);
  check_gradients(d, want);
}

TEST_CASE("a token whose coefficient is 0 takes no part, whatever its hidden state") {
  random_source random{1311};
  const test_gemm multiply;
  head_case<bfloat16> c{random, {40, 16, 90, 2}, true};
  for (std::size_t t = 0; t < 40; t += 3) c.d_token[t] = 0;
  // As if such tokens were not scored.
  head_case<bfloat16> without = c;
  for (std::size_t t = 0; t < 40; ++t) {
    if (c.d_token[t] == 0) without.targets[t] = ignored_target;
  }
  const head_answer want{without};
  for (std::size_t t = 0; t < 40; ++t) {
    if (c.d_token[t] != 0) continue;
    c.hidden.fill_row(static_cast<std::int64_t>(t), [](std::int64_t) { return std::nan(""); });
  }
  for (const bool keep : {false, true}) {
    CAPTURE(keep);
    on_device<bfloat16> d{c};
    const device_array<std::byte> memory(std::size_t{1} << 20);
    const gpu::scratch space{memory.data(), memory.bytes()};
    gpu::head_ticket ticket;
    require_success(gpu::head_log_probs<bfloat16>(d.rows(), d.out(), multiply, space, nullptr,
                                                  keep ? &ticket : nullptr));
    CHECK(ticket.kept == (keep ? 128 : 0));
    require_success(gpu::head_gradient<bfloat16>(d.rows(), d.log_prob.input(), d.lse.input(),
                                                 d.d_token.input(), d.gradients(), ticket, multiply,
                                                 space, nullptr));
    testing::synchronise();
    check_gradients(d, want);
  }
  on_device<bfloat16> d{c};
  require_success(testing::with_scratch([&](gpu::scratch space) {
    return gpu::head_step<bfloat16>(
        d.rows(), prospect::sequence_layout::padded(4, 10), 4, d.out(),
        [](std::int64_t, std::int64_t, cudaStream_t) { return cudaSuccess; }, d.d_token.input(),
        d.gradients(), multiply, space, nullptr);
  }));
  check_gradients(d, want);
}

TEST_CASE("coefficients of softmax and onehot are two, under a mask apart from the targets") {
  random_source random{1312};
  const test_gemm multiply;
  head_case<float> c{random, {50, 12, 300, 2}, true, {.temperature = 0.8}};
  std::vector<float> softmax, onehot;
  std::vector<std::uint8_t> mask;
  for (int t = 0; t < 50; ++t) {
    softmax.push_back(t % 7 == 0 ? 0.0F : static_cast<float>(random.normal(1)));
    onehot.push_back(t % 5 == 0 ? 0.0F : static_cast<float>(random.normal(1)));
    mask.push_back(random.chance(0.7) ? 1 : 0);
    c.d_token[static_cast<std::size_t>(t)] = -softmax.back();
  }
  c.options.mask = mask;
  // (a p - b onehot) = -a (onehot - p) + (a - b) onehot
  head_answer want{c};
  std::int64_t scored = 0;
  for (std::int64_t t = 0; t < 50; ++t) {
    if (!c.scored(t)) continue;
    ++scored;
    const auto i = static_cast<std::size_t>(t);
    const std::int64_t target = c.targets[i];
    const double rest =
        (static_cast<double>(softmax[i]) - static_cast<double>(onehot[i])) / c.options.temperature;
    want.d_bias[static_cast<std::size_t>(target)] += rest;
    for (std::int64_t k = 0; k < 12; ++k) {
      want.d_weight[static_cast<std::size_t>(target * 12 + k)] +=
          rest * static_cast<double>(c.hidden.at(t, k));
    }
  }
  const device_array<std::uint8_t> device_mask(mask);
  const device_array<float> a(softmax), b(onehot);
  on_device<float> d{c};
  auto rows = d.rows(scored);
  rows.options.mask = device_mask.input();
  score(d, rows, multiply);
  CHECK(d.scored.host()[0] == scored);
  d.scored.set({d.count()});
  check_scores(d, want);
  require_success(testing::with_scratch([&](gpu::scratch space) {
    return gpu::head_gradient<float>(rows, d.log_prob.input(), d.lse.input(),
                                     {a.input(), b.input()}, d.gradients(), multiply, space,
                                     nullptr);
  }));
  CHECK(testing::distance(d.d_weight.fetch().elements(), want.d_weight) <= 2e-5);
  CHECK(testing::distance(d.d_bias.host(), want.d_bias) <= 2e-5);
}

TEST_CASE("what else the head says about a token") {
  random_source random{1313};
  const test_gemm multiply;
  head_case<float> c{random, {60, 8, 7, 0}, true};
  on_device<float> d{c};
  score(d, d.rows(), multiply);
  const auto squares = d.squares.host();
  const auto mean = d.mean.host();
  const auto argmax = d.argmax.host();
  std::int64_t wrong = 0, hits = 0;
  for (std::int64_t t = 0; t < 60; ++t) {
    std::vector<double> z;
    for (std::int64_t v = 0; v < 7 && c.scored(t); ++v) {
      z.push_back(static_cast<double>(c.bias[static_cast<std::size_t>(v)]));
      for (std::int64_t k = 0; k < 8; ++k) {
        z.back() += static_cast<double>(c.hidden.at(t, k)) * static_cast<double>(c.weight.at(v, k));
      }
    }
    double sum = 0, of_squares = 0, total = 0;
    for (const double x : z) {
      sum += std::exp(x);
      of_squares += std::exp(2 * x);
      total += x;
    }
    const auto i = static_cast<std::size_t>(t);
    const bool hit =
        c.scored(t) && std::max_element(z.begin(), z.end()) - z.begin() == c.targets[i];
    hits += hit ? 1 : 0;
    const auto near = [](float got, double right) {
      return std::abs(static_cast<double>(got) - right) <= 1e-4;
    };
    const bool good = near(squares[i], c.scored(t) ? of_squares / (sum * sum) : 0) &&
                      near(mean[i], c.scored(t) ? total / 7 : 0) && argmax[i] == (hit ? 1 : 0);
    wrong += good ? 0 : 1;
  }
  CHECK(wrong == 0);
  CHECK(hits > 0);
}

TEST_CASE("padding of every gradient of the head becomes 0 where that is asked for") {
  random_source random{1314};
  const test_gemm multiply;
  head_case<float16> c{random, {20, 10, 50, 3}, true};
  const head_answer want{c};
  for (const bool step : {false, true}) {
    CAPTURE(step);
    on_device<float16> d{c};
    auto rows = d.rows();
    rows.options.zero_padding = true;
    require_success(testing::with_scratch([&](gpu::scratch space) {
      if (step) {
        return gpu::head_step<float16>(
            rows, prospect::sequence_layout::padded(2, 10), 2, d.out(),
            [](std::int64_t, std::int64_t, cudaStream_t) { return cudaSuccess; }, d.d_token.input(),
            d.gradients(), multiply, space, nullptr);
      }
      return gpu::head_log_probs<float16>(rows, d.out(), multiply, space, nullptr);
    }));
    if (!step) {
      differentiate(d, rows, d.gradients(), multiply);
    }
    const auto padding_is_0 = [](auto& matrix) {
      const auto m = matrix.view();
      std::int64_t other = 0;
      for (std::int64_t i = 0; i < m.rows; ++i) {
        for (std::int64_t j = m.columns; j < m.pitch; ++j) {
          other += prospect::load(m.row(i)[j]) == 0 ? 0 : 1;
        }
      }
      return m.pitch > m.columns && other == 0;
    };
    CHECK(padding_is_0(d.d_hidden.fetch()));
    CHECK(padding_is_0(d.d_weight.fetch()));
    CHECK(padding_is_0(d.d_a.fetch()));
    CHECK(padding_is_0(d.d_b.fetch()));
    CHECK(testing::distance(d.host_d_weight.elements(), want.d_weight) <= 4e-3);
    CHECK(testing::distance(d.host_d_hidden.elements(), want.d_hidden) <= 4e-3);
  }
}

TEST_CASE("large hidden states in fp16 stay finite when they are brought to their coefficients") {
  random_source random{1315};
  const test_gemm multiply;
  head_case<float16> c{random, {4, 6, 20, 0}, false, {}, 0};
  for (std::int64_t v = 0; v < 20; ++v) {
    c.weight.fill_row(v, [&](std::int64_t) { return random.normal(2e-5); });
  }
  for (std::int64_t t = 0; t < 4; ++t) {
    c.hidden.fill_row(t, [&](std::int64_t) { return random.normal(1) < 0 ? -60000 : 60000; });
  }
  c.d_token = {1.9F, -1.5F, 0.3F, 1.0F};
  const head_answer want{c};
  for (const bool keep : {false, true}) {
    CAPTURE(keep);
    on_device<float16> d{c};
    const device_array<std::byte> memory(std::size_t{1} << 20);
    const gpu::scratch space{memory.data(), memory.bytes()};
    gpu::head_ticket ticket;
    require_success(gpu::head_log_probs<float16>(d.rows(), d.out(), multiply, space, nullptr,
                                                 keep ? &ticket : nullptr));
    require_success(gpu::head_gradient<float16>(d.rows(), d.log_prob.input(), d.lse.input(),
                                                d.d_token.input(), d.gradients(), ticket, multiply,
                                                space, nullptr));
    testing::synchronise();
    CHECK(testing::distance(d.d_weight.fetch().elements(), want.d_weight) <= 4e-3);
  }
}

TEST_CASE("offsets that lead out of the batch are not followed by the head") {
  random_source random{1316};
  const test_gemm multiply;
  head_case<float> c{random, {20, 8, 30, 0}, true};
  const head_answer want{c};
  on_device<float> d{c};
  const std::int64_t outside = std::int64_t{1} << 40;
  const device_array<std::int64_t> begins(std::vector<std::int64_t>{-outside, 10});
  const device_array<std::int64_t> ends(std::vector<std::int64_t>{10, outside});
  require_success(testing::with_scratch([&](gpu::scratch space) {
    return gpu::head_step<float>(
        d.rows(), prospect::sequence_layout::ranges(begins.input(), ends.input()), 1, d.out(),
        [](std::int64_t, std::int64_t, cudaStream_t) { return cudaSuccess; }, d.d_token.input(),
        d.gradients(), multiply, space, nullptr);
  }));
  d.scored.set({d.count()});
  check_scores(d, want);
  check_gradients(d, want);
}

TEST_CASE("a ticket that no forward pass with these rows can have given is refused") {
  random_source random{1317};
  const test_gemm multiply;
  head_case<float> c{random, {20, 8, 30, 0}, true};
  on_device<float> d{c};
  const device_array<std::byte> memory(std::size_t{1} << 22);
  for (const std::int64_t kept : {std::int64_t{-128}, std::int64_t{1}, std::int64_t{256},
                                  std::numeric_limits<std::int64_t>::max()}) {
    CAPTURE(kept);
    CHECK(gpu::head_gradient<float>(
              d.rows(), d.log_prob.input(), d.lse.input(), d.d_token.input(), d.gradients(), {kept},
              multiply, {memory.data(), memory.bytes()}, nullptr) == cudaErrorInvalidValue);
  }
  testing::synchronise();
}

TEST_CASE("bias, adapters and entropies of the head are looked at as far as the host can") {
  random_source random{1318};
  head_case<float> c{random, {10, 8, 30, 2}, true};
  on_device<float> d{c};
  const auto says = [&](auto change) {
    auto rows = d.rows();
    change(rows);
    const char* why = gpu::problem(rows, d.out());
    return std::string{why == nullptr ? "" : why};
  };
  const float* const nowhere = nullptr;
  CHECK(says([&](auto& r) { r.head.bias = {nowhere, 30}; }) == "head.bias has no data");
  CHECK(says([&](auto& r) {
          r.head.bias = {
              reinterpret_cast<const float*>(reinterpret_cast<std::uintptr_t>(d.bias.data()) + 1),
              30};
        }) == "head.bias is misaligned, or larger than any memory");
  CHECK(says([](auto& r) {
          r.head.lora.a.rows = r.head.lora.b.columns = std::int64_t{1} << 31;
        }).find("head.lora") == 0);
  CHECK(says([](auto& r) {
          r.head.lora.a.rows = r.head.lora.b.columns = r.head.lora.b.pitch = std::int64_t{1} << 31;
        }) == "head.lora.a has more than 2^30 rows");

  const prospect::token_coefficients<float> by{d.d_token.input(), d.d_token.input()};
  const auto refuses = [&](auto change) {
    auto rows = d.rows();
    auto gradients = d.gradients();
    change(rows, gradients);
    const char* why = gpu::problem(rows, d.log_prob.input(), d.lse.input(), by, gradients);
    return std::string{why == nullptr ? "" : why};
  };
  CHECK(refuses([](auto&, auto&) {}).empty());
  CHECK(refuses([](auto& r, auto& g) {
          r.options.zero_padding = true;
          g.weight.pitch = std::int64_t{1} << 40;
          g.weight.rows = r.head.weight.rows;
        }) == "gradients.weight have more than 2^30 columns");
  CHECK(refuses([](auto& r, auto&) { r.head.lora = {}; }) ==
        "gradients of an adapter are asked for, and the head has none");

  auto out = d.out();
  prospect::token_coefficients<float> tilted = by;
  tilted.d_entropy = d.d_token.input();
  tilted.entropy = out.entropy;
  const auto layout = prospect::sequence_layout::padded(2, 5);
  CHECK(gpu::problem(d.rows(), layout, 1, out, tilted, d.gradients()) == nullptr);
  tilted.entropy = out.sum_squares;
  CHECK(std::string{gpu::problem(d.rows(), layout, 1, out, tilted, d.gradients())} ==
        "coefficients.entropy must be the row that out.entropy is");
}

TEST_CASE(
    "a step of more scored tokens than stated spoils its own results and the head's gradients") {
  random_source random{1319};
  const test_gemm multiply;
  head_case<float> c{random, {30, 8, 20, 1}, true, {}, 0};
  for (std::size_t t : {0, 4, 11, 25, 26}) c.targets[t] = ignored_target;  // of tens: 8, 9, 8
  on_device<float> d{c};
  const auto nans = [](const auto& values, std::size_t first, std::size_t last) {
    return std::count_if(values.begin() + static_cast<std::ptrdiff_t>(first),
                         values.begin() + static_cast<std::ptrdiff_t>(last),
                         [](auto x) { return std::isnan(x); });
  };
  require_success(testing::with_scratch([&](gpu::scratch space) {
    return gpu::head_step<float>(
        d.rows(8), prospect::sequence_layout::padded(3, 10), 1, d.out(),
        [](std::int64_t, std::int64_t, cudaStream_t) { return cudaSuccess; }, d.d_token.input(),
        d.gradients(), multiply, space, nullptr);
  }));
  CHECK(d.scored.host()[0] == 9);
  const auto log_prob = d.log_prob.host();
  CHECK(nans(log_prob, 0, 10) == 0);
  CHECK(nans(log_prob, 10, 20) == 10);
  CHECK(nans(log_prob, 20, 30) == 0);
  const auto d_hidden = d.d_hidden.fetch().elements();
  CHECK(nans(d_hidden, 0, 80) == 0);
  CHECK(nans(d_hidden, 80, 160) == 80);
  CHECK(nans(d_hidden, 160, 240) == 0);
  for (const auto& sums : {d.d_weight.fetch().elements(), d.d_a.fetch().elements(),
                           d.d_b.fetch().elements(), d.d_bias.host()}) {
    CHECK(nans(sums, 0, sums.size()) == static_cast<std::ptrdiff_t>(sums.size()));
  }
}

struct products_on_device {
  cudaError_t operator()(const gpu::gemm_product<float>& p, cudaStream_t stream) const {
    return gpu::detail::launch(&testing::product_kernel, p.c.rows, 32, 0, 1, stream, p, p.b.rows());
  }
};

TEST_CASE("a step of the head is a graph, whose targets and coefficients change between replays") {
  random_source random{1320};
  const products_on_device multiply;
  head_case<float> c{random, {24, 4, 9, 0}, true};
  for (const bool one_go : {false, true}) {
    CAPTURE(one_go);
    on_device<float> d{c};
    const auto rows = d.rows(24);
    const device_array<std::byte> memory(std::size_t{1} << 18);
    const gpu::scratch space{memory.data(), memory.bytes()};
    const testing::recorded_graph graph{[&](cudaStream_t stream) {
      if (one_go) {
        return gpu::head_step<float>(
            rows, prospect::sequence_layout::padded(4, 6), 2, d.out(),
            [](std::int64_t, std::int64_t, cudaStream_t) { return cudaSuccess; }, d.d_token.input(),
            d.gradients(), multiply, space, stream);
      }
      gpu::head_ticket ticket;
      const cudaError_t e =
          gpu::head_log_probs<float>(rows, d.out(), multiply, space, stream, &ticket);
      CHECK(ticket.kept > 0);
      return e != cudaSuccess ? e
                              : gpu::head_gradient<float>(rows, d.log_prob.input(), d.lse.input(),
                                                          d.d_token.input(), d.gradients(), ticket,
                                                          multiply, space, stream);
    }};
    head_case<float> changed = c;
    for (const int replay : {0, 1, 2}) {
      CAPTURE(replay);
      for (std::size_t t = 0; replay > 0 && t < 24; ++t) {
        if (c.targets[t] == ignored_target) continue;
        changed.targets[t] = random.chance(0.4) ? ignored_target : random.integer(0, 8);
        changed.d_token[t] = static_cast<float>(random.normal(replay == 1 ? 1e-3 : 50));
      }
      d.targets.set(changed.targets);
      d.d_token.set(changed.d_token);
      graph.replay();
      const head_answer want{changed};
      CHECK(testing::distance(d.log_prob.host(), want.log_prob) <= 2e-5);
      CHECK(testing::distance(d.d_hidden.fetch().elements(), want.d_hidden) <= 2e-5);
      CHECK(testing::distance(d.d_weight.fetch().elements(), want.d_weight) <= 2e-5);
      CHECK(testing::distance(d.d_bias.host(), want.d_bias) <= 2e-5);
      const auto scored =
          static_cast<std::int64_t>(24) -
          std::count(changed.targets.begin(), changed.targets.end(), ignored_target);
      if (!one_go) CHECK(d.scored.host()[0] == scored);
    }
  }
}

}  // namespace
