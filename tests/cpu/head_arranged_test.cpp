// The head path with a GEMM that arranges what many rows are multiplied by: the same answers, and
// the same bits of log-probs in every schedule, workspace and order.

#include <prospect/cpu/head.hpp>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <limits>
#include <vector>

#include "catch.hpp"
#include "cpu/head_cases.hpp"
#include "cpu/head_checks.hpp"
#include "cpu/narrow_gemm.hpp"
#include "executors.hpp"
#include "random.hpp"

namespace {

using namespace testing;
using prospect::matrix_view;
using prospect::cpu::gemm_operand;
using prospect::cpu::head_gradient;
using prospect::cpu::head_log_probs;
using prospect::cpu::head_log_probs_and_gradient;
using prospect::cpu::narrow_products;

/// Eigen's products, of bf16 widened. What a thread arranged last takes the place of what was there
/// before, so that a product by that is of other numbers.
class arranging_eigen {
 public:
  explicit arranging_eigen(std::int64_t rows = 192, narrow_products narrow = narrow_products::none)
      : rows_{rows}, narrow_{narrow} {}
  arranging_eigen(const arranging_eigen&) = delete;
  arranging_eigen& operator=(const arranging_eigen&) = delete;

  template <prospect::storage S>
  narrow_products narrow() const {
    return narrow_;
  }
  template <prospect::storage S>
  void operator()(gemm_operand<S> a, gemm_operand<S> b, matrix_view<prospect::compute_t<S>> c,
                  bool accumulate) const {
    const auto x = widened(a.matrix), y = widened(b.matrix);
    multiply(a, x, b, y, c, accumulate);
  }
  template <prospect::storage S>
  std::int64_t arranged_rows() const {
    return rows_;
  }
  template <prospect::storage S>
  auto arrange(gemm_operand<S> b) const {
    using R = prospect::compute_t<S>;
    static thread_local std::vector<R> arranged;
    arranged = widened(b.matrix);
    ++arrangements;
    return [=, this](matrix_view<const S> a, matrix_view<R> c, bool accumulate) {
      if (a.rows > rows_) ++too_many_rows;
      ++products;
      multiply(gemm_operand<S>{a}, widened(a), b, arranged, c, accumulate);
    };
  }

  mutable std::atomic<std::int64_t> arrangements{0}, products{0}, too_many_rows{0};

 private:
  template <class S, class R>
  static void multiply(const gemm_operand<S>& a, const std::vector<R>& wide_a,
                       const gemm_operand<S>& b, const std::vector<R>& wide_b, matrix_view<R> c,
                       bool accumulate) {
    prospect::cpu::eigen_gemm{}(
        gemm_operand<R>{{wide_a.data(), a.matrix.rows, a.matrix.columns}, a.transposed},
        gemm_operand<R>{{wide_b.data(), b.matrix.rows, b.matrix.columns}, b.transposed}, c,
        accumulate);
  }

  std::int64_t rows_;
  narrow_products narrow_;
};

/// How far off sums over tokens may be, of products of rounded gradients or of wide ones.
template <class S, class Gemm>
double sums_tolerance(const Gemm& multiply) {
  const bool rounds =
      std::same_as<S, bfloat16> && multiply.template narrow<S>() == narrow_products::all;
  return rounds ? 4e-3 : sum_tolerance<prospect::compute_t<S>>;
}

// Of several tiles, with chunks of several blocks of rows; an adapter as well.
const std::vector<head_shape> arranged_shapes{
    {0, 7, 5},       {1, 1, 1},          {9, 7, 5},          {33, 7, 17000}, {500, 7, 1100},
    {300, 64, 2500}, {40, 520, 1100, 3}, {450, 16, 2100, 9}, {30, 530, 961}, {30, 7, 960}};

/// Neither order nor workspace shows in log-probs and the frozen gradient; log-probs alone are
/// those.
template <class S, class Gemm>
void check_invariance(random_source& random, const Gemm& multiply) {
  using R = prospect::compute_t<S>;
  head_case<S> c{random, {410, 40, 2100, 5}, true, {.temperature = 0.9}};
  const auto run = [&](std::int64_t bytes, auto& on) {
    head_workspace<R> workspace{bytes};
    head_results<S> r{c.shape}, alone{c.shape};
    head_log_probs_and_gradient(c.hidden.view(), c.head(), c.targets, r.scores(), r.hidden.view(),
                                workspace, c.options, multiply, on);
    head_log_probs(c.hidden.view(), c.head(), c.targets, alone.scores(), workspace, false,
                   c.options, multiply, on);
    CHECK(same_bits(alone.log_prob, r.log_prob));
    CHECK(same_bits(alone.lse, r.lse));
    return r;
  };
  // Sums over tokens depend on the workspace, but on no executor.
  const auto train = [&](std::int64_t bytes, auto& on) {
    head_workspace<R> workspace{bytes};
    head_results<S> r{c.shape};
    const head_ticket ticket = head_log_probs(c.hidden.view(), c.head(), c.targets, r.scores(),
                                              workspace, true, c.options, multiply, on);
    head_gradient(c.hidden.view(), c.head(), c.targets, r.log_prob, r.lse, c.d_token, r.gradients(),
                  ticket, workspace, c.options, multiply, on);
    return r;
  };
  prospect::serial_executor serial;
  head_results<S> want = run(plenty, serial);
  const std::int64_t least = least_bytes(c, true, multiply);
  for (const std::int64_t bytes : {least, 2 * least, 5 * least, plenty}) {
    CAPTURE(bytes);
    head_results<S> trained = train(bytes, serial);
    testing::with_each_executor([&](const std::string& name, auto& on) {
      CAPTURE(name);
      CHECK(run(bytes, on).same_as(want));
      CHECK(train(bytes, on).same_as(trained));
    });
  }
  for (const std::int64_t threads : {std::int64_t{-1}, std::numeric_limits<std::int64_t>::max()}) {
    struct says {
      std::int64_t threads() const { return named; }
      void run(std::int64_t n, prospect::task t) { prospect::serial_executor::run(n, t); }
      std::int64_t named;
    } on{threads};
    CAPTURE(threads);
    CHECK(run(plenty, on).same_as(want));
  }
}

}  // namespace

TEMPLATE_TEST_CASE("every schedule by a GEMM that arranges, in every workspace", "[head][arranged]",
                   float, double, bfloat16) {
  random_source random{795};
  CAPTURE(random.seed());
  const arranging_eigen multiply;
  check_shapes<TestType>(random, arranged_shapes, multiply);
  // Of some tiles more than one block.
  CHECK(multiply.arrangements > 0);
  CHECK(multiply.products > multiply.arrangements);
  CHECK(multiply.too_many_rows == 0);
}

TEST_CASE("every schedule by a GEMM that arranges what is narrow", "[head][arranged][narrow]") {
  random_source random{800};
  CAPTURE(random.seed());
  for (const auto which : {narrow_products::of_logits, narrow_products::all}) {
    CAPTURE(which);
    const arranging_eigen multiply{192, which};
    check_shapes<bfloat16>(random, arranged_shapes, multiply, sums_tolerance<bfloat16>(multiply));
    check_invariance<bfloat16>(random, multiply);
  }
}

TEST_CASE("every schedule by a GEMM that has nothing to arrange, or likes few rows",
          "[head][arranged]") {
  random_source random{799};
  CAPTURE(random.seed());
  for (const std::int64_t rows : {std::int64_t{24}, std::numeric_limits<std::int64_t>::max()}) {
    CAPTURE(rows);
    const arranging_eigen multiply{rows};
    check_shapes<float>(random, arranged_shapes, multiply);
    CHECK(multiply.too_many_rows == 0);
  }
}

TEMPLATE_TEST_CASE("no executor and no workspace shows in what a GEMM that arranges makes",
                   "[head][arranged][invariance]", float, bfloat16) {
  random_source random{796};
  CAPTURE(random.seed());
  check_invariance<TestType>(random, arranging_eigen{});
}

TEST_CASE("log-probs alone take less memory by a GEMM that arranges", "[head][arranged][memory]") {
  random_source random{797};
  head_case<float> c{random, {1000, 8, 4000}, false, {}, 0};
  // Room for a block of one tile, hidden states and sums: a tile of all rows would take 3.9 MB.
  const std::int64_t rows = 1008;  // a multiple of 24
  const auto room = static_cast<std::int64_t>(192 * 960 * sizeof(float) + rows * 8 * sizeof(float) +
                                              rows * sizeof(prospect::vocabulary_partial) + 4096);
  const arranging_eigen multiply;
  head_workspace<float> workspace{room};
  head_results<float> r{c.shape};
  prospect::serial_executor on;
  head_log_probs(c.hidden.view(), c.head(), c.targets, r.scores(), workspace, false, c.options,
                 multiply, on);
  // One chunk: every tile was arranged once.
  CHECK(multiply.arrangements == (4000 + 959) / 960);
}

#ifdef PROSPECT_WITH_ONEDNN
TEMPLATE_TEST_CASE("every schedule by oneDNN, in every workspace", "[head][arranged]", float,
                   bfloat16) {
  random_source random{798};
  CAPTURE(random.seed());
  const prospect::cpu::onednn_gemm multiply;
  check_shapes<TestType>(random, arranged_shapes, multiply, sums_tolerance<TestType>(multiply));
  check_invariance<TestType>(random, multiply);
}
#endif
