// The head path with a GEMM that arranges what many rows are multiplied by: the same answers, and
// the same bits of log-probs in every schedule, workspace and order.

#include <prospect/cpu/head.hpp>
#ifdef PROSPECT_WITH_ONEDNN
#include <prospect/cpu/gemm_onednn.hpp>
#endif

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <limits>
#include <vector>

#include "catch.hpp"
#include "cpu/head_cases.hpp"
#include "cpu/head_checks.hpp"
#include "executors.hpp"
#include "random.hpp"

namespace {

using namespace testing;
using prospect::matrix_view;
using prospect::cpu::gemm_operand;
using prospect::cpu::head_log_probs;
using prospect::cpu::head_log_probs_and_gradient;

/// Eigen's products. What a thread arranged last takes the place of what was there before, so that
/// a product by that is of other numbers.
class arranging_eigen {
 public:
  explicit arranging_eigen(std::int64_t rows = 192) : rows_{rows} {}
  arranging_eigen(const arranging_eigen&) = delete;
  arranging_eigen& operator=(const arranging_eigen&) = delete;

  template <std::floating_point R>
  void operator()(gemm_operand<R> a, gemm_operand<R> b, matrix_view<R> c, bool accumulate) const {
    prospect::cpu::eigen_gemm{}(a, b, c, accumulate);
  }
  template <std::floating_point R>
  std::int64_t arranged_rows() const {
    return rows_;
  }
  template <std::floating_point R>
  auto arrange(gemm_operand<R> b) const {
    static thread_local std::vector<R> arranged;
    const matrix_view<const R>& m = b.matrix;
    arranged.clear();
    for (std::int64_t i = 0; i < m.rows; ++i) {
      arranged.insert(arranged.end(), m.row(i), m.row(i) + m.columns);
    }
    ++arrangements;
    return [=, this](matrix_view<const R> a, matrix_view<R> c, bool accumulate) {
      if (a.rows > rows_) ++too_many_rows;
      ++products;
      (*this)(gemm_operand<R>{a},
              gemm_operand<R>{{arranged.data(), m.rows, m.columns}, b.transposed}, c, accumulate);
    };
  }

  mutable std::atomic<std::int64_t> arrangements{0}, products{0}, too_many_rows{0};

 private:
  std::int64_t rows_;
};

// Of several tiles, with chunks of several blocks of rows; an adapter as well.
const std::vector<head_shape> arranged_shapes{
    {0, 7, 5},       {1, 1, 1},          {9, 7, 5},          {33, 7, 17000}, {500, 7, 1100},
    {300, 64, 2500}, {40, 520, 1100, 3}, {450, 16, 2100, 9}, {30, 7, 960}};

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
  prospect::serial_executor serial;
  head_results<S> want = run(plenty, serial);
  const std::int64_t least = least_bytes(c, true, multiply);
  for (const std::int64_t bytes : {least, 2 * least, 5 * least, plenty}) {
    CAPTURE(bytes);
    testing::with_each_executor([&](const std::string& name, auto& on) {
      CAPTURE(name);
      CHECK(run(bytes, on).same_as(want));
    });
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
  head_case<float> c{random, {1000, 8, 4000}, false};
  // Blocks of logits for each tile at a time, and hidden states: no window of all rows.
  const std::int64_t room = 16 * 192 * 960 * 4 + 1000 * 8 * 4 + 16 * 1000 * 80 + 4096;
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
  const bool rounds = multiply.narrow<TestType>() == prospect::cpu::narrow_products::all;
  check_shapes<TestType>(random, arranged_shapes, multiply,
                         std::same_as<TestType, bfloat16> && rounds ? 4e-3 : sum_tolerance<float>);
  check_invariance<TestType>(random, multiply);
}
#endif
