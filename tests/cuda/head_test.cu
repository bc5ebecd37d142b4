// The head path on the device against the textbook: every schedule, storage and size of memory.
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

namespace {

namespace gpu = prospect::cuda;
using prospect::bfloat16;
using prospect::float16;
using prospect::ignored_target;
using namespace testing;

template <class Launch>
std::size_t needed(const Launch& launch) {
  std::size_t bytes = 0;
  require_success(launch(gpu::scratch::size_into(bytes)));
  return bytes;
}

/// Every schedule, in the memory that it asks for and in shares of it down to what is refused.
template <class S>
void check_schedules(head_case<S>& c, const test_gemm& multiply) {
  CAPTURE(c.shape.tokens, c.shape.width, c.shape.vocabulary, c.shape.rank, c.bias.empty());
  const head_answer want{c};
  std::vector<float> first;
  int refused = 0, kept_some = 0, kept_all = 0;
  for (const double share : {1.0, 0.6, 0.35, 0.01}) {
    CAPTURE(share);
    for (const bool keep : {false, true}) {
      on_device<S> d{c};
      const auto rows = d.rows();
      gpu::head_ticket ticket;
      const auto forward = [&](gpu::scratch space) {
        return gpu::head_log_probs<S>(rows, d.out(), multiply, space, nullptr,
                                      keep ? &ticket : nullptr);
      };
      const auto backward = [&](gpu::scratch space) {
        return gpu::head_gradient<S>(rows, d.log_prob.input(), d.lse.input(), d.d_token.input(),
                                     d.gradients(), ticket, multiply, space, nullptr);
      };
      const auto bytes = static_cast<std::size_t>(
          share * static_cast<double>(std::max(needed(forward), needed(backward))));
      const device_array<std::byte> memory(bytes);
      const gpu::scratch space{memory.data(), bytes};
      const cudaError_t status = forward(space);
      if (status == cudaErrorInvalidValue && share < 1) {
        ++refused;
        continue;
      }
      require_success(status);
      testing::synchronise();
      check_scores(d, want);
      if (first.empty()) first = d.log_prob.host();
      CHECK(testing::same_bits(d.log_prob.host(), first));
      CHECK(ticket.kept <= std::max<std::int64_t>(128, (d.count() + 127) / 128 * 128));
      kept_some += ticket.kept > 0 && ticket.kept < d.count() ? 1 : 0;
      kept_all += keep && ticket.kept >= d.count() ? 1 : 0;
      if (backward(space) == cudaErrorInvalidValue) {
        CHECK(share < 1);
        CHECK_FALSE(keep);  // what was kept for it has left it room
        continue;
      }
      testing::synchronise();
      check_gradients(d, want);
    }
    on_device<S> d{c};
    const auto frozen = [&](gpu::scratch space) {
      return gpu::head_log_probs_and_gradient<S>(d.rows(), d.out(), d.d_hidden.view(), multiply,
                                                 space, nullptr);
    };
    const auto bytes = static_cast<std::size_t>(share * static_cast<double>(needed(frozen)));
    const device_array<std::byte> memory(bytes);
    const cudaError_t status = frozen({memory.data(), bytes});
    if (status == cudaErrorInvalidValue && share < 1) continue;
    require_success(status);
    testing::synchronise();
    check_scores(d, want);
    CHECK(testing::same_bits(d.log_prob.host(), first));
    check_hidden(d, want.d_hidden_unit, false);
  }
  CHECK(refused > 0);
  CHECK(kept_all > 0);
  if (c.shape.tokens > 256) CHECK(kept_some > 0);
}

TEMPLATE_TEST_CASE("every schedule of the head on the device leaves what the textbook does", "",
                   float, bfloat16, float16) {
  random_source random{1301};
  const test_gemm multiply;
  for (const head_shape shape : {head_shape{40, 16, 37, 0}, head_shape{300, 24, 130, 3},
                                 head_shape{30, 8, 4500, 1}, head_shape{1, 5, 2, 0}}) {
    head_case<TestType> c{random, shape, random.chance(0.5)};
    check_schedules(c, multiply);
  }
}

TEST_CASE("one word, one token, an odd width, and not one token that is scored") {
  random_source random{1309};
  const test_gemm multiply;
  for (const head_shape shape : {head_shape{5, 3, 1, 1}, head_shape{1, 1, 1, 0}}) {
    head_case<float> c{random, shape, true, {}, 0};
    check_schedules(c, multiply);
  }
  head_case<bfloat16> c{random, {9, 7, 33, 1}, true, {}, 1};
  check_schedules(c, multiply);
}

TEST_CASE("options of the head on the device") {
  random_source random{1302};
  const test_gemm multiply;
  std::vector<float> inverse;
  for (int t = 0; t < 50; ++t) inverse.push_back(static_cast<float>(std::exp(random.normal(0.4))));
  for (const bool entropy : {false, true}) {
    head_case<float> c{random, {50, 12, 300, 2}, true, {.temperature = 0.8, .soft_cap = 6}};
    c.options.inverse_temperatures = inverse;
    if (entropy) {
      for (int t = 0; t < 50; ++t) c.d_entropy.push_back(static_cast<float>(random.normal(1)));
    }
    const head_answer want{c};
    on_device<float> d{c};
    const auto rows = d.rows();
    score(d, rows, multiply);
    check_scores(d, want);
    std::vector<float> negative;
    for (const float x : c.d_token) negative.push_back(-x);
    const device_array<float> both(negative);
    prospect::token_coefficients<float> by{both.input(), both.input()};
    if (entropy) {
      by.d_entropy = d.d_entropy.input();
      by.entropy = d.entropy.input();
    }
    require_success(testing::with_scratch([&](gpu::scratch space) {
      return gpu::head_gradient<float>(rows, d.log_prob.input(), d.lse.input(), by, d.gradients(),
                                       multiply, space, nullptr);
    }));
    if (!entropy) {
      check_gradients(d, want);
    } else {  // a token without the first two coefficients still has one
      CHECK(testing::distance(d.d_hidden.fetch().elements(), want.d_hidden) <= 2e-5);
      CHECK(testing::distance(d.d_weight.fetch().elements(), want.d_weight) <= 2e-5);
    }
  }
}

TEST_CASE("a trained head in one go, whose coefficients come sequence by sequence") {
  random_source random{1307};
  const test_gemm multiply;
  for (const std::int64_t rank : {0, 2}) {
    head_case<bfloat16> c{random, {200, 16, 130, rank}, true};
    const std::vector<std::int64_t> offsets{0, 30, 30, 95, 140, 141, 190};
    for (std::size_t t = 190; t < 200; ++t) {  // of no sequence
      c.targets[t] = ignored_target;
      c.hidden.fill_row(static_cast<std::int64_t>(t), [](std::int64_t) { return std::nan(""); });
    }
    const head_answer want{c};
    on_device<bfloat16> d{c};
    const device_array<std::int64_t> device_offsets(offsets);
    const auto layout = prospect::sequence_layout::packed(device_offsets.input());
    for (const std::int64_t at_a_time : {1, 2, 4, 6}) {
      CAPTURE(rank, at_a_time);
      std::int64_t most = 0;
      for (std::int64_t s = 0; s < 6; s += at_a_time) {
        const auto first = offsets[static_cast<std::size_t>(s)];
        const auto last =
            offsets[static_cast<std::size_t>(std::min<std::int64_t>(6, s + at_a_time))];
        most = std::max<std::int64_t>(
            most,
            last - first -
                std::count(c.targets.begin() + first, c.targets.begin() + last, ignored_target));
      }
      const device_array<float> d_token(d.n);  // full of NaN
      std::int64_t next = 0;
      const auto ready = [&](std::int64_t first, std::int64_t last, cudaStream_t stream) {
        CHECK(first == next);
        next = last;
        const auto begin = static_cast<std::size_t>(offsets[static_cast<std::size_t>(first)]);
        const auto end = static_cast<std::size_t>(offsets[static_cast<std::size_t>(last)]);
        return cudaMemcpyAsync(d_token.data() + begin, d.d_token.data() + begin,
                               (end - begin) * sizeof(float), cudaMemcpyDeviceToDevice, stream);
      };
      require_success(testing::with_scratch([&](gpu::scratch space) {
        return gpu::head_step<bfloat16>(d.rows(most), layout, at_a_time, d.out(), ready,
                                        d_token.input(), d.gradients(), multiply, space, nullptr);
      }));
      CHECK(next == 6);
      CHECK(d.scored.host()[0] == most);
      const std::int64_t scored = d.count();
      d.scored.set({scored});
      check_scores(d, want);
      check_gradients(d, want);
    }
  }
}

TEST_CASE("gradients of the head are added to what is there, and small coefficients lose nothing") {
  random_source random{1303};
  const test_gemm multiply;
  head_case<float16> c{random, {60, 16, 90, 2}, true};
  const head_answer want{c};
  for (float& d : c.d_token) d *= 0x1p-40F;
  on_device<float16> d{c};
  const auto rows = d.rows();
  score(d, rows, multiply);
  auto gradients = d.gradients();
  gradients.hidden = {};
  for (const bool again : {false, true}) {
    gradients.accumulate = again;
    differentiate(d, rows, gradients, multiply);
    const double scale = (again ? 2 : 1) * 0x1p-40;
    const auto check = [&](auto got, std::vector<double> right) {
      for (double& x : right) x *= scale;
      CHECK(testing::distance(got, right) <= 4e-3);
    };
    check(d.d_weight.fetch().elements(), want.d_weight);
    check(d.d_bias.host(), want.d_bias);
    check(d.d_a.fetch().elements(), want.d_lora_a);
    check(d.d_b.fetch().elements(), want.d_lora_b);
  }
}

TEST_CASE("more scored tokens than the host stated make everything NaN and are counted") {
  random_source random{1304};
  const test_gemm multiply;
  head_case<float> c{random, {20, 8, 30, 0}, true};
  on_device<float> d{c};
  const std::int64_t scored = d.count();
  const auto all_nan = [](const auto& values) {
    return std::all_of(values.begin(), values.end(), [](auto x) { return std::isnan(x); });
  };
  for (const std::int64_t stated : {scored - 1, scored, scored + 3}) {
    CAPTURE(stated);
    if (stated > c.shape.tokens) continue;
    const auto rows = d.rows(stated);
    require_success(testing::with_scratch([&](gpu::scratch space) {
      return gpu::head_log_probs_and_gradient<float>(rows, d.out(), d.d_hidden.view(), multiply,
                                                     space, nullptr);
    }));
    CHECK(d.scored.host()[0] == scored);
    const bool spoilt = stated < scored;
    CHECK(all_nan(d.log_prob.host()) == spoilt);
    CHECK(all_nan(d.lse.host()) == spoilt);
    CHECK(all_nan(d.d_hidden.fetch().elements()) == spoilt);
    const device_array<float> log_prob(std::vector<float>(d.n, -1.0F));
    const device_array<double> lse(std::vector<double>(d.n, 3.0));
    require_success(testing::with_scratch([&](gpu::scratch space) {
      return gpu::head_gradient<float>(rows, log_prob.input(), lse.input(), d.d_token.input(),
                                       d.gradients(), {}, multiply, space, nullptr);
    }));
    CHECK(all_nan(d.d_weight.fetch().elements()) == spoilt);
    CHECK(all_nan(d.d_bias.host()) == spoilt);
    CHECK(all_nan(d.d_hidden.fetch().elements()) == spoilt);
  }
}

TEST_CASE("ranks that share a vocabulary get the log-probs and gradients of the whole") {
  random_source random{1305};
  const test_gemm multiply;
  head_case<bfloat16> c{random, {50, 16, 200, 0}, true};
  const head_answer want{c};
  on_device<bfloat16> d{c};
  const auto whole = d.rows();
  const std::int64_t cut = 77;
  const auto part = [&](int rank) {
    auto rows = whole;
    const std::int64_t first = rank == 0 ? 0 : cut;
    const std::int64_t size = rank == 0 ? cut : c.shape.vocabulary - cut;
    auto& w = rows.head.weight;
    w = {w.row(first), size, w.columns, w.pitch};
    rows.head.bias = {rows.head.bias.data() + first, size};
    rows.first_token = first;
    rows.vocabulary = c.shape.vocabulary;
    return rows;
  };
  const device_array<prospect::vocabulary_partial> partials(2 * d.n);
  for (const int rank : {0, 1}) {
    const prospect::strided_span<prospect::vocabulary_partial> mine{
        partials.data() + static_cast<std::size_t>(rank) * d.n, static_cast<std::int64_t>(d.n)};
    require_success(testing::with_scratch([&](gpu::scratch space) {
      return gpu::head_vocabulary_partials<bfloat16>(part(rank), mine, true, multiply, space,
                                                     nullptr);
    }));
  }
  require_success(gpu::token_log_probs(
      prospect::matrix_view<const prospect::vocabulary_partial>{partials.data(), 2,
                                                                static_cast<std::int64_t>(d.n)},
      d.targets.input(), d.out(), nullptr));
  testing::synchronise();
  check_scores(d, want);
  std::vector<double> d_hidden(want.d_hidden.size());
  std::vector<double> d_weight;
  for (const int rank : {0, 1}) {
    auto gradients = d.gradients();
    const auto rows = part(rank);
    auto& w = gradients.weight;
    w = {w.row(rows.first_token), rows.head.weight.rows, w.columns, w.pitch};
    gradients.bias = {gradients.bias.data() + rows.first_token, rows.head.weight.rows};
    differentiate(d, rows, gradients, multiply);
    const auto mine = d.d_hidden.fetch().elements();
    for (std::size_t i = 0; i < mine.size(); ++i) {
      d_hidden[i] += static_cast<double>(prospect::load(mine[i]));
    }
  }
  CHECK(testing::distance(d_hidden, want.d_hidden) <= 4e-3);
  CHECK(testing::distance(d.d_weight.fetch().elements(), want.d_weight) <= 4e-3);
  CHECK(testing::distance(d.d_bias.host(), want.d_bias) <= 4e-3);
}

TEST_CASE("what is wrong with a call of the head is said before anything is launched") {
  random_source random{1306};
  head_case<float> c{random, {10, 8, 30, 2}, true};
  on_device<float> d{c};
  const auto says = [&](auto change) {
    auto rows = d.rows();
    change(rows);
    const char* why = gpu::problem(rows, d.out());
    return std::string{why == nullptr ? "" : why};
  };
  CHECK(says([](auto&) {}).empty());
  CHECK(says([](auto& r) { r.scored_at_most = -1; }) == "scored_at_most is negative");
  CHECK(says([](auto& r) { r.scored_at_most = 11; }) ==
        "scored_at_most is more than there are tokens");
  CHECK(says([](auto& r) { r.head.weight.columns = 7; }) ==
        "head.weight has other columns than hidden");
  CHECK(says([](auto& r) { r.head.lora.b.columns = 1; }) ==
        "head.lora.b has other columns than head.lora.a has rows");
  CHECK(says([](auto& r) { r.head.lora.scale = std::nan(""); }) ==
        "head.lora.scale must lie within 1e30 of 0");
  CHECK(says([](auto& r) { r.options.temperature = 0; }) ==
        "temperature must lie inside [1e-30, 1e30]");
  CHECK(says([](auto& r) { r.vocabulary = 60; }) ==
        "vocabulary is split here: use head_vocabulary_partials");
  auto gradients = d.gradients();
  gradients.hidden = d.hidden.view();
  const prospect::token_coefficients<float> by{d.d_token.input(), d.d_token.input()};
  CHECK(std::string{gpu::problem(d.rows(), d.log_prob.input(), d.lse.input(), by, gradients)} ==
        "gradients.hidden must not lie where what it is the gradient of lies");
}

}  // namespace
