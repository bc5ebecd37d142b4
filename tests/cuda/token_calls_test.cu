// What a call on tokens promises besides its numbers: a row's bits depend on the row alone, scratch
// is checked, graphs replay with what the device holds by then.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "catch.hpp"
#include "cuda/token_cases.hpp"
#include "random.hpp"

namespace {

namespace gpu = prospect::cuda;
using gpu::scratch;
using prospect::bfloat16;
using prospect::float16;
using prospect::ignored_target;
using prospect::index_row;
using prospect::matrix_view;
using prospect::sequence_layout;
using prospect::strided_span;
using prospect::token_outputs;
using testing::device_array;
using testing::device_matrix;
using testing::device_results;
using testing::device_targets;
using testing::logits_matrix;
using testing::on_cuda;
using testing::random_source;
using testing::require_success;
using testing::row_kind;
using testing::same_bits;
using testing::same_results;

int multiprocessors() {
  gpu::detail::device_limits device;
  require_success(gpu::detail::device_limits::of_current(device));
  return device.multiprocessors;
}

template <class S>
bool same_row(const logits_matrix<S>& a, std::int64_t i, const logits_matrix<S>& b,
              std::int64_t j) {
  logits_matrix<S> x = a;
  logits_matrix<S> y = b;
  for (std::int64_t k = 0; k < x.columns(); ++k) {
    if (!same_bits(x.at(i, k), y.at(j, k))) return false;
  }
  return true;
}

}  // namespace

TEMPLATE_TEST_CASE("a row's bits depend on nothing but the row", "", float, bfloat16, float16) {
  random_source random{601};
  CAPTURE(random.seed());
  constexpr std::int64_t tile = gpu::detail::tile_columns<TestType>;
  // So many tiles that few rows are split over blocks and many are not.
  const std::int64_t vocabulary = 9 * tile + 11;
  const std::int64_t many = 2 * multiprocessors();
  const std::int64_t y = vocabulary / 3;
  logits_matrix<TestType> one{1, vocabulary, 0, 0};
  fill(one, 0, row_kind::ordinary, y, random);
  const auto want = on_cuda.forward(one, {y}, {});
  logits_matrix<TestType> want_gradient = one;
  on_cuda.deferred(want_gradient, {y}, {});

  for (std::int64_t misaligned = 0; misaligned < 8; ++misaligned) {
    // At every alignment, last of a batch of other sizes.
    const std::int64_t rows = misaligned % 2 == 0 ? many : 3;
    CAPTURE(rows, misaligned);
    logits_matrix<TestType> all{rows, vocabulary, misaligned % 3, misaligned};
    std::vector<std::int64_t> targets(static_cast<std::size_t>(rows), ignored_target);
    targets.back() = y;
    all.fill_row(rows - 1, [&](std::int64_t j) { return prospect::load(one.at(0, j)); });
    const auto got = on_cuda.forward(all, targets, {});
    CHECK(same_bits(got.log_prob.back(), want.log_prob[0]));
    CHECK(same_bits(got.lse.back(), want.lse[0]));
    CHECK(same_bits(got.entropy.back(), want.entropy[0]));
    on_cuda.deferred(all, targets, {});
    CHECK(same_row(all, rows - 1, want_gradient, 0));
  }
}

TEST_CASE("statistics that are not asked for change no bit of the others") {
  random_source random{602};
  logits_matrix<bfloat16> logits{3, 5003};
  for (std::int64_t t = 0; t < 3; ++t) fill(logits, t, row_kind::ordinary, 7, random);
  const device_matrix<bfloat16> d{logits};
  const device_targets targets{{7, 7, 7}};
  const device_results all{3};
  const device_results some{3};
  require_success(gpu::token_log_probs<bfloat16>(d.view(), targets, all.out(), {}, {}, nullptr));
  require_success(gpu::token_log_probs<bfloat16>(
      d.view(), targets, {.log_prob = some.log_prob.row(), .lse = some.lse.row()}, {}, {},
      nullptr));
  testing::synchronise();
  CHECK(same_bits(all.log_prob.host(), some.log_prob.host()));
  CHECK(same_bits(all.lse.host(), some.lse.host()));
  CHECK(same_bits(some.entropy.host(), device_results{3}.entropy.host()));  // not written
}

TEST_CASE("more rows than a grid has in its other dimensions") {
  const std::int64_t rows = 65537;
  const device_array<float> logits(static_cast<std::size_t>(2 * rows));
  require_success(cudaMemset(logits.data(), 0, logits.bytes()));
  std::vector<std::int32_t> last(static_cast<std::size_t>(rows), ignored_target);
  last.back() = 0;
  const device_array<std::int32_t> targets{last};
  const device_array<float> log_prob(targets.size());
  const token_outputs<float> out{.log_prob = log_prob.row()};
  require_success(
      gpu::token_log_probs<float>({logits.data(), rows, 2}, targets.input(), out, {}, {}, nullptr));
  testing::synchronise();
  const auto all = log_prob.host();
  CHECK(testing::near(all.back(), std::log(0.5L), 4e-6L));
  CAPTURE(all[0], all[1]);
  CHECK(std::count(all.begin(), all.end(), 0.0F) == rows - 1);
}

TEST_CASE("more elements than 32 bits count") {
  if (!testing::full_size()) return;  // 9 GB
  const std::int64_t columns = 262144;
  const std::int64_t rows = (std::int64_t{1} << 32) / columns + 2;
  const device_array<bfloat16> logits(static_cast<std::size_t>(rows * columns));
  require_success(cudaMemset(logits.data(), 0, logits.bytes()));
  const device_array<std::int32_t> targets(static_cast<std::size_t>(rows));
  require_success(cudaMemset(targets.data(), 0, targets.bytes()));
  const device_array<float> log_prob(targets.size());
  require_success(gpu::token_log_probs_and_gradient<bfloat16>(
      {logits.data(), rows, columns}, targets.input(), {.log_prob = log_prob.row()}, {}, nullptr));
  testing::synchronise();
  const auto all = log_prob.host();
  CHECK(testing::near(all.back(), -std::log(262144.0L), 4e-6L));
  CHECK(same_bits(all.front(), all.back()));
  bfloat16 last{};
  require_success(
      cudaMemcpy(&last, logits.data() + rows * columns - 1, sizeof(last), cudaMemcpyDeviceToHost));
  CHECK(same_bits(last, bfloat16{-1.0F / 262144}));
}

TEST_CASE("scratch: few long rows take some, its size is known without work") {
  random_source random{603};
  const std::int64_t vocabulary = 9 * gpu::detail::tile_columns<float>;
  logits_matrix<float> logits{2, vocabulary};
  for (std::int64_t t = 0; t < 2; ++t) fill(logits, t, row_kind::ordinary, 5, random);
  const device_matrix<float> d{logits};
  const device_targets targets{{5, 5}};
  const device_results r{2};
  const auto call = [&](scratch space) {
    return gpu::token_log_probs<float>(d.view(), targets, r.out(), {}, space, nullptr);
  };
  std::size_t bytes = 0;
  require_success(call(scratch::size_into(bytes)));
  CHECK(bytes >= 2 * 9 * sizeof(prospect::vocabulary_partial));
  const device_array<std::byte> memory(bytes);
  CHECK(call({memory.data(), bytes - 1}) == cudaErrorInvalidValue);
  CHECK(call({memory.data() + 8, bytes}) == cudaErrorInvalidValue);
  CHECK(call({}) == cudaErrorInvalidValue);
  testing::synchronise();
  CHECK(same_bits(r.log_prob.host(), device_results{2}.log_prob.host()));  // nothing happened
  require_success(call({memory.data(), bytes}));
  testing::synchronise();
  CHECK(r.log_prob.host()[0] < 0);
}

TEST_CASE("empty matrices are fine") {
  const device_results none{0};
  const matrix_view<float> x{nullptr, 0, 7};
  require_success(gpu::token_log_probs<float>(x, {}, none.out(), {}, {}, nullptr));
  require_success(gpu::token_log_probs_and_gradient<float>(x, {}, none.out(), {}, nullptr));
  require_success(
      gpu::logits_gradient<float>(x, {}, {}, {}, strided_span<const float>{}, {}, nullptr));
  require_success(gpu::scale_rows<float>(x, {}, nullptr));
  require_success(gpu::sequence_sums<float>({}, {}, sequence_layout::padded(0, 0), {}, nullptr));
  // No columns: whatever the target, it is no token.
  const device_targets targets{{0}};
  const device_results one{1};
  require_success(
      gpu::token_log_probs<float>({nullptr, 1, 0}, targets, one.out(), {}, {}, nullptr));
  testing::synchronise();
  CHECK(std::isnan(one.log_prob.host()[0]));
}

TEST_CASE("a whole step replays as a graph, with what the device holds by then") {
  random_source random{604};
  const std::int64_t vocabulary = 301;
  const std::int64_t n = 6;
  logits_matrix<bfloat16> logits{n, vocabulary};
  const device_array<bfloat16> memory(logits.block().size());
  const device_array<std::int64_t> targets(static_cast<std::size_t>(n));
  const device_array<std::int32_t> offsets{std::vector<std::int32_t>{0, 4, 6}};
  const auto layout = sequence_layout::packed(offsets.input());
  const matrix_view<bfloat16> x{memory.data() + logits.first(), n, vocabulary, logits.view().pitch};
  const device_array<double> sums(2);
  const device_array<double> d_sequence(2);
  const device_array<float> log_prob(static_cast<std::size_t>(n));
  const device_array<double> lse(log_prob.size());
  const device_array<float> d_token(log_prob.size());
  const auto step = [&](cudaStream_t stream) {
    const index_row y = targets.input();
    cudaError_t e = gpu::token_log_probs<bfloat16>(
        x, y, {.log_prob = log_prob.row(), .lse = lse.row()}, {}, {}, stream);
    if (e == cudaSuccess) {
      e = gpu::sequence_sums<float>(log_prob.input(), y, layout, {.log_prob = sums.row()}, stream);
    }
    if (e == cudaSuccess) {
      e = gpu::spread<float>(d_sequence.input(), y, layout, d_token.row(), stream);
    }
    if (e == cudaSuccess) {
      e = gpu::logits_gradient<bfloat16>(x, y, log_prob.input(), lse.input(), d_token.input(), {},
                                         stream);
    }
    return e;
  };
  const testing::recorded_graph graph{step};
  const int replays = testing::full_size() ? 1000 : 3;
  for (int i = 0; i < replays; ++i) {
    std::vector<std::int64_t> y;
    for (std::int64_t t = 0; t < n; ++t) {
      y.push_back(t == i % n ? ignored_target : random.integer(0, vocabulary - 1));
      fill(logits, t, row_kind::ordinary, std::max<std::int64_t>(0, y.back()), random);
    }
    targets.set(y);
    d_sequence.set({random.normal(1), random.normal(1)});
    memory.set(logits.block());
    graph.replay();
    const auto replayed = memory.host();
    const auto replayed_sums = sums.host();
    memory.set(logits.block());
    require_success(step(nullptr));
    require_success(cudaDeviceSynchronize());
    REQUIRE(same_bits(replayed, memory.host()));
    REQUIRE(same_bits(replayed_sums, sums.host()));
    REQUIRE(!same_bits(replayed, logits.block()));
  }
}
