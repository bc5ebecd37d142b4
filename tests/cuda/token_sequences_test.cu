// From tokens to sequences and back on the device, and vocabularies that are split: sums, spreads,
// shifted labels, scaled rows, partials and what becomes of them.
#include <prospect/cpu/tokens.hpp>
#include <prospect/cuda/tokens.cuh>

#include <cstdint>
#include <limits>
#include <vector>

#include "catch.hpp"
#include "cpu/vocabulary_parts.hpp"
#include "cuda/token_cases.hpp"
#include "random.hpp"
#include "special_numbers.hpp"

namespace {

namespace cpu = prospect::cpu;
namespace gpu = prospect::cuda;
using prospect::bfloat16;
using prospect::float16;
using prospect::ignored_target;
using prospect::matrix_view;
using prospect::sequence_layout;
using prospect::strided_span;
using prospect::vocabulary_partial;
using testing::device_array;
using testing::device_matrix;
using testing::device_results;
using testing::device_targets;
using testing::logits_matrix;
using testing::not_a_number;
using testing::on_cuda;
using testing::random_source;
using testing::require_success;
using testing::row_kind;
using testing::same_bits;
using testing::same_results;
using testing::with_scratch;

}  // namespace

TEMPLATE_TEST_CASE("sums over padded and packed sequences, and coefficients back", "", float,
                   double) {
  using R = TestType;
  random_source random{701};
  CAPTURE(random.seed());
  // Of no length, of one row, and longer than a block.
  const std::vector<std::int64_t> lengths{3, 0, 1, 700, 29};
  std::vector<std::int64_t> offsets{0};
  for (const std::int64_t length : lengths) offsets.push_back(offsets.back() + length);
  const std::int64_t n = offsets.back();
  std::vector<std::int64_t> targets;
  std::vector<R> log_prob;
  for (std::int64_t t = 0; t < n; ++t) {
    const bool scored = random.chance(0.7);
    targets.push_back(scored ? 1 : ignored_target);
    // What is not scored is not read.
    log_prob.push_back(scored ? static_cast<R>(-std::abs(random.normal(5)))
                              : std::numeric_limits<R>::quiet_NaN());
  }
  const std::vector<double> d{0.5, -2, 0.25, 1e-3, -1};
  const auto check = [&](const sequence_layout& here, const sequence_layout& there) {
    const auto m = static_cast<std::size_t>(here.sequences());
    std::vector<double> want(m);
    std::vector<std::int32_t> want_tokens(m);
    std::vector<R> want_token(log_prob.size());
    cpu::sequence_sums<R>(log_prob, targets, here, {.log_prob = want, .tokens = want_tokens});
    cpu::spread<R>(strided_span<const double>{d}.slice(0, here.sequences()), targets, here,
                   want_token);

    const device_array<R> x{log_prob};
    const device_array<std::int64_t> y{targets};
    const device_array<double> sums(m);
    const device_array<std::int32_t> tokens(m);
    const device_array<double> d_sequence{d};
    const device_array<R> d_token(log_prob.size());
    require_success(gpu::sequence_sums<R>(
        x.input(), y.input(), there, {.log_prob = sums.row(), .tokens = tokens.row()}, nullptr));
    require_success(gpu::spread<R>(d_sequence.input().slice(0, here.sequences()), y.input(), there,
                                   d_token.row(), nullptr));
    testing::synchronise();
    CHECK(same_bits(tokens.host(), want_tokens));
    const auto got = sums.host();
    for (std::size_t i = 0; i < m; ++i) CHECK(testing::near(got[i], want[i], 1e-14L));
    CHECK(same_bits(d_token.host(), want_token));
  };
  const device_array<std::int64_t> device_offsets{offsets};
  check(sequence_layout::packed(offsets), sequence_layout::packed(device_offsets.input()));
  REQUIRE(n == 733);
  check(sequence_layout::padded(1, 733), sequence_layout::padded(1, 733));
}

TEST_CASE("ranges leave rows out on the device, and share none") {
  const std::vector<std::int32_t> begins{2, 6, 6};
  const std::vector<std::int32_t> ends{5, 6, 8};
  const std::vector<std::int32_t> targets{1, 1, 1, ignored_target, 1, 1, 1, 1, 1, 1};
  const std::vector<std::int32_t> labels{10, 11, 12, 13, 14, 15, 16, 17, 18, 19};
  const std::vector<float> log_prob{9, 9, -1, -2, -4, 9, -8, -16, 9, 9};
  const std::vector<double> d{3, 5, 9};
  const device_array<std::int32_t> there_begins{begins};
  const device_array<std::int32_t> there_ends{ends};
  const device_array<std::int32_t> y{targets};
  const device_array<std::int32_t> l{labels};
  const device_array<float> x{log_prob};
  const device_array<double> d_sequence{d};
  const device_array<double> sums(3);
  const device_array<std::int32_t> tokens(3);
  const device_array<float> d_token(10);
  const device_array<std::int32_t> shifted(10);
  const auto here = sequence_layout::ranges(begins, ends);
  const auto there = sequence_layout::ranges(there_begins.input(), there_ends.input());
  require_success(gpu::sequence_sums<float>(
      x.input(), y.input(), there, {.log_prob = sums.row(), .tokens = tokens.row()}, nullptr));
  require_success(gpu::spread<float>(d_sequence.input(), y.input(), there, d_token.row(), nullptr));
  require_success(gpu::shift_targets(l.input(), there, shifted.row(), nullptr));
  testing::synchronise();
  CHECK(sums.host() == std::vector<double>{-5, 0, -24});
  CHECK(tokens.host() == std::vector<std::int32_t>{2, 0, 2});
  CHECK(d_token.host() == std::vector<float>{0, 0, 3, 0, 3, 0, 9, 9, 0, 0});
  std::vector<std::int32_t> want(10);
  cpu::shift_targets(labels, here, want);
  CHECK(shifted.host() == want);

  // No sequence at all: every row is outside.
  const auto none = sequence_layout::ranges({}, {});
  require_success(gpu::spread<float>({}, y.input(), none, d_token.row(), nullptr));
  require_success(gpu::shift_targets(l.input(), none, shifted.row(), nullptr));
  testing::synchronise();
  CHECK(d_token.host() == std::vector<float>(10, 0.0F));
  CHECK(shifted.host() == std::vector<std::int32_t>(10, ignored_target));
}

TEMPLATE_TEST_CASE("a mask is a target of -100 to sums and spreads on the device", "", std::uint8_t,
                   std::int32_t, float) {
  const std::vector<TestType> marks{0, 1, TestType(2), 0, 1, 1};
  const device_array<TestType> mask{marks};
  const device_array<std::int64_t> y{{5, 5, -7, 1'000'000'000'000, ignored_target, 5}};
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const device_array<float> x{{nan, -1, -2, nan, -4, -8}};
  const device_array<double> d{{0.5, 2}};
  const device_array<double> sums(2);
  const device_array<std::int32_t> tokens(2);
  const device_array<float> d_token(6);
  const auto layout = sequence_layout::padded(2, 3);
  require_success(gpu::sequence_sums<float>(x.input(), y.input(), layout,
                                            {.log_prob = sums.row(), .tokens = tokens.row()},
                                            mask.input(), nullptr));
  require_success(
      gpu::spread<float>(d.input(), y.input(), layout, d_token.row(), mask.input(), nullptr));
  testing::synchronise();
  CHECK(sums.host() == std::vector<double>{-3, -8});
  CHECK(tokens.host() == std::vector<std::int32_t>{2, 1});
  CHECK(d_token.host() == std::vector<float>{0, 0.5F, 0.5F, 0, 0, 2});
}

TEST_CASE("a label that is no int32 token makes a target that is none") {
  constexpr std::int64_t largest = (std::int64_t{1} << 31) - 1;
  const device_array<std::int64_t> labels{{0, largest, largest + 1, (std::int64_t{1} << 32) + 5,
                                           (std::int64_t{1} << 32) - 100, -1, ignored_target}};
  const device_array<std::int32_t> targets(7);
  require_success(
      gpu::shift_targets(labels.input(), sequence_layout::padded(1, 7), targets.row(), nullptr));
  testing::synchronise();
  CHECK(targets.host() ==
        std::vector<std::int32_t>{largest, -1, -1, -1, -1, ignored_target, ignored_target});
}

TEST_CASE("offsets that lie read nothing outside the batch") {
  const device_array<float> log_prob{std::vector<float>{-1, -2, -4}};
  const device_array<std::int32_t> targets{std::vector<std::int32_t>{0, 0, 0}};
  const device_array<std::int64_t> offsets{std::vector<std::int64_t>{-7, 2, 1000000, 1}};
  const auto layout = sequence_layout::packed(offsets.input());
  const device_array<double> sums(3);
  const device_array<double> d{std::vector<double>{1, 2, 3}};
  require_success(gpu::sequence_sums<float>(log_prob.input(), targets.input(), layout,
                                            {.log_prob = sums.row()}, nullptr));
  testing::synchronise();
  CHECK(sums.host() == std::vector<double>{-3, -4, 0});

  // What writes rows is given lies that do not overlap: who would write last is not said.
  const device_array<std::int64_t> beyond{std::vector<std::int64_t>{-7, 2, 1000000, 2000000}};
  const auto outside = sequence_layout::packed(beyond.input());
  const device_array<float> d_token(3);
  const device_array<std::int32_t> shifted(3);
  require_success(gpu::spread<float>(d.input(), targets.input(), outside, d_token.row(), nullptr));
  require_success(gpu::shift_targets(targets.input(), outside, shifted.row(), nullptr));
  testing::synchronise();
  CHECK(d_token.host() == std::vector<float>{1, 1, 2});
  CHECK(shifted.host() == std::vector<std::int32_t>{0, ignored_target, ignored_target});
}

TEST_CASE("labels are aligned with the rows that predict them") {
  const std::vector<std::int32_t> labels{5, ignored_target, 7, 8, 9, 10};
  const std::vector<std::int32_t> offsets{0, 3, 3, 6};
  const device_array<std::int32_t> y{labels};
  const device_array<std::int32_t> o{offsets};
  const device_array<std::int32_t> targets(6);
  for (const bool packed : {true, false}) {
    std::vector<std::int32_t> want(6);
    cpu::shift_targets(
        labels, packed ? sequence_layout::packed(offsets) : sequence_layout::padded(2, 3), want);
    require_success(gpu::shift_targets(
        y.input(), packed ? sequence_layout::packed(o.input()) : sequence_layout::padded(2, 3),
        targets.row(), nullptr));
    testing::synchronise();
    CHECK(targets.host() == want);
  }
}

TEMPLATE_TEST_CASE("the deferred gradient, scaled, is the gradient", "", float, bfloat16, float16) {
  random_source random{702};
  const std::int64_t vocabulary = 2051;
  logits_matrix<TestType> logits{4, vocabulary, 3, 5};
  const std::vector<std::int64_t> targets{0, 7, ignored_target, vocabulary - 1};
  for (std::int64_t t = 0; t < 4; ++t) fill(logits, t, row_kind::ordinary, 7, random);
  const std::vector<float> d{0.5F, 0, 3, -0.125F};  // powers of two round once
  const auto pass = on_cuda.forward(logits, targets, {});
  std::vector<float> minus_d;
  for (const float x : d) minus_d.push_back(-x);
  logits_matrix<TestType> want = logits;
  on_cuda.gradient(want, want, targets, pass, minus_d, minus_d, {});
  on_cuda.deferred(logits, targets, {});
  logits.fill_row(1, [](std::int64_t) { return not_a_number; });  // of factor 0: not read
  {
    device_matrix<TestType> m{logits};
    const device_array<float> factors{d};
    require_success(gpu::scale_rows<TestType>(m.view(), factors.input(), nullptr));
    testing::synchronise();
    m.fetch();
  }
  CHECK(logits.padding_untouched());
  for (std::int64_t t = 0; t < 4; ++t) {
    for (std::int64_t j = 0; j < vocabulary; ++j) {
      const auto got = static_cast<long double>(prospect::load(logits.at(t, j)));
      const auto exact = static_cast<long double>(prospect::load(want.at(t, j)));
      // Where 16 bits are subnormal, a power of two rounds as well.
      REQUIRE(testing::near(got, exact, testing::last_place<TestType> / 4,
                            testing::smallest<TestType>));
    }
  }
}

TEMPLATE_TEST_CASE("a vocabulary in parts gives the results of the whole", "", float, bfloat16,
                   float16) {
  random_source random{703};
  CAPTURE(random.seed());
  constexpr std::int64_t tile = gpu::detail::tile_columns<TestType>;
  const std::int64_t vocabulary = tile + 1003;
  const std::int64_t n = 4;
  const std::vector<std::int64_t> targets{0, ignored_target, vocabulary - 1, 700};
  logits_matrix<TestType> logits{n, vocabulary, 1, 3};
  for (std::int64_t t = 0; t < n; ++t) {
    fill(logits, t, t == 0 ? row_kind::dead_start : row_kind::ordinary,
         targets[static_cast<std::size_t>(t)], random);
  }
  const device_matrix<TestType> d{logits};
  const device_targets y{targets};
  const auto whole = on_cuda.forward(logits, targets, {});
  for (const auto& shards :
       {testing::shards_to({vocabulary}), testing::shards_to({701, vocabulary}),
        testing::shards_to({1, 700, vocabulary})}) {
    CAPTURE(shards.size());
    const auto parts = static_cast<std::int64_t>(shards.size());
    const device_array<vocabulary_partial> gathered(static_cast<std::size_t>(parts * n));
    for (std::int64_t part = 0; part < parts; ++part) {
      const testing::shard& shard = shards[static_cast<std::size_t>(part)];
      require_success(with_scratch([&](gpu::scratch space) {
        return gpu::vocabulary_partials<TestType>(
            shard.of(d.view()), y, gathered.row().slice(part * n, n), shard.options({}, vocabulary),
            true, space, nullptr);
      }));
    }
    const matrix_view<const vocabulary_partial> all{gathered.data(), parts, n};
    const device_results r{n};
    require_success(gpu::token_log_probs(all, y, r.out(), nullptr));
    testing::synchronise();
    const auto got = r.host();

    // The same partials in the library's order on the host: the same but for its own exp and log.
    const auto host = gathered.host();
    testing::token_results<float> twin{n};
    cpu::token_log_probs<float>({host.data(), parts, n}, targets, twin.out());
    for (std::size_t t = 0; t < targets.size(); ++t) {
      CAPTURE(t);
      CHECK(testing::near(got.lse[t], twin.lse[t], 0, 2e-7L));
      CHECK(testing::near(got.log_prob[t], twin.log_prob[t], 1.2e-7L));
      CHECK(testing::near(got.entropy[t], twin.entropy[t], 1.2e-7L, 1e-12L));
      CHECK(got.argmax[t] == twin.argmax[t]);
      CHECK(testing::near(got.lse[t], whole.lse[t], 1e-15L, 2e-7L));
      CHECK(testing::near(got.log_prob[t], whole.log_prob[t], 0, 1e-6L));
      CHECK(testing::near(got.entropy[t], whole.entropy[t], 0, 4e-6L));
      CHECK(testing::near(got.sum_squares[t], whole.sum_squares[t], 4e-6L));
      CHECK(testing::near(got.mean_logit[t], whole.mean_logit[t], 4e-6L, 1e-6L));
      CHECK(got.argmax[t] == whole.argmax[t]);
    }
    if (parts == 1) CHECK(same_results(got, whole));

    // Each part's gradient with the whole's scores is the whole's gradient.
    const std::vector<float> one(targets.size(), 1.0F);
    logits_matrix<TestType> want = logits;
    on_cuda.gradient(want, want, targets, whole, one, one, {});
    logits_matrix<TestType> split = logits;
    {
      device_matrix<TestType> m{split};
      const device_array<float> log_prob{whole.log_prob};
      const device_array<double> lse{whole.lse};
      const device_array<float> minus_one{std::vector<float>(targets.size(), -1.0F)};
      for (const testing::shard& shard : shards) {
        require_success(gpu::logits_gradient<TestType>(shard.of(m.view()), y, log_prob.input(),
                                                       lse.input(), minus_one.input(),
                                                       shard.options({}, vocabulary), nullptr));
      }
      testing::synchronise();
      m.fetch();
    }
    CHECK(same_bits(split.elements(), want.elements()));
  }
}

TEST_CASE("partials of a token that is in no part are nobody's") {
  random_source random{704};
  logits_matrix<float> logits{2, 40};
  for (std::int64_t t = 0; t < 2; ++t) fill(logits, t, row_kind::ordinary, 7, random);
  const device_matrix<float> d{logits};
  const device_targets y{{80, -3}};
  const device_array<vocabulary_partial> partials(2);
  require_success(gpu::vocabulary_partials<float>(
      d.view(), y, partials.row(), {.first_token = 0, .vocabulary = 80}, false, {}, nullptr));
  const device_results r{2};
  require_success(gpu::token_log_probs({partials.data(), 1, 2}, y, r.out(), nullptr));
  testing::synchronise();
  for (const float x : r.log_prob.host()) CHECK(std::isnan(x));
}
