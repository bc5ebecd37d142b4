// Sums over ranks on gathered rows: the order is the ranks', whatever the shape, and what makes no
// sense is refused.
#include <prospect/cuda/ranks.cuh>

#include <cmath>
#include <cstdint>
#include <limits>
#include <string_view>
#include <vector>

#include "catch.hpp"
#include "cuda/device.hpp"
#include "random.hpp"

namespace {

namespace gpu = prospect::cuda;
using prospect::matrix_view;
using prospect::strided_span;
using prospect::sum_count;
using testing::device_array;
using testing::require_success;

bool complains(const char* problem, std::string_view what) {
  return problem != nullptr && std::string_view{problem}.find(what) != std::string_view::npos;
}

TEST_CASE("ranks are added up from the first to the last") {
  testing::random_source random{2101};
  // Digits are lost on the way, in this order and in no other.
  const std::vector<double> of_ranks{1, 1e16, 1, -1e16, 0.25};
  const double in_order = (((1 + 1e16) + 1) - 1e16) + 0.25;
  for (const std::int64_t columns : {1, 2, 127, 300}) {
    CAPTURE(columns);
    const std::int64_t ranks = 5, pitch = columns + 3;
    std::vector<double> numbers(static_cast<std::size_t>(ranks * pitch), -7);
    std::vector<sum_count> observed(numbers.size(), {-7, -7});
    std::vector<double> want(static_cast<std::size_t>(columns));
    for (std::int64_t i = 0; i < ranks; ++i) {
      for (std::int64_t j = 0; j < columns; ++j) {
        const double x = j == 0 ? of_ranks[static_cast<std::size_t>(i)] : random.normal(1e3);
        numbers[static_cast<std::size_t>(i * pitch + j)] = x;
        observed[static_cast<std::size_t>(i * pitch + j)] = {x, static_cast<double>(i + j)};
        double& sum = want[static_cast<std::size_t>(j)];
        sum = i == 0 ? x : sum + x;
      }
    }
    REQUIRE(want[0] == in_order);
    const device_array<double> a(numbers), sums(static_cast<std::size_t>(2 * columns));
    const device_array<sum_count> b(observed), totals(static_cast<std::size_t>(columns));
    require_success(gpu::sum_over_ranks(matrix_view<const double>{a.data(), ranks, columns, pitch},
                                        {sums.data(), columns, 2}, nullptr));
    require_success(gpu::sum_over_ranks(
        matrix_view<const sum_count>{b.data(), ranks, columns, pitch}, totals.row(), nullptr));
    testing::synchronise();
    const auto got = sums.host();
    const auto pairs = totals.host();
    std::int64_t wrong = 0;
    for (std::size_t j = 0; j < want.size(); ++j) {
      wrong += got[2 * j] == want[j] && pairs[j].sum == want[j] &&
                       pairs[j].count == 10 + 5 * static_cast<double>(j)
                   ? 0
                   : 1;
    }
    CHECK(wrong == 0);
    // Over one of the rows.
    require_success(gpu::sum_over_ranks(matrix_view<const double>{a.data(), ranks, columns, pitch},
                                        {a.data() + 2 * pitch, columns}, nullptr));
    testing::synchronise();
    CHECK(a.host()[static_cast<std::size_t>(2 * pitch + columns - 1)] == want.back());
    CHECK(a.host()[static_cast<std::size_t>(2 * pitch + columns)] == -7);
  }
}

TEST_CASE("one rank is its own sum, and what is no number stays none") {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const device_array<sum_count> a(std::vector<sum_count>{{-0.0, 0}, {nan, 2}});
  const device_array<sum_count> sums(2);
  require_success(
      gpu::sum_over_ranks(matrix_view<const sum_count>{a.data(), 1, 2}, sums.row(), nullptr));
  testing::synchronise();
  CHECK(std::signbit(sums.host()[0].sum));
  CHECK(std::isnan(sums.host()[1].sum));
  CHECK(sums.host()[1].count == 2);
}

TEST_CASE("sums over ranks that make no sense are refused") {
  const device_array<double> a(8), sums(4);
  const auto problem = [&](matrix_view<const double> ranks, strided_span<double> to) {
    const char* why = gpu::problem(ranks, to);
    CHECK(gpu::sum_over_ranks(ranks, to, nullptr) ==
          (why == nullptr ? cudaSuccess : cudaErrorInvalidValue));
    return why;
  };
  CHECK(problem({a.data(), 2, 4}, sums.row()) == nullptr);
  CHECK(problem({a.data(), 2, 0}, {}) == nullptr);
  CHECK(complains(problem({a.data(), 0, 4}, sums.row()), "ranks are none"));
  CHECK(complains(problem({nullptr, 2, 4}, sums.row()), "ranks have no data"));
  CHECK(complains(problem({a.data(), 2, 4, 3}, sums.row()), "pitch"));
  CHECK(complains(problem({a.data(), -1, 4}, sums.row()), "negative"));
  CHECK(complains(problem({a.data(), 1, std::int64_t{1} << 31}, sums.row()), "2^30"));
  CHECK(complains(problem({a.data(), 2, 3}, sums.row()), "each column"));
  CHECK(complains(problem({a.data(), 2, 4}, {sums.data(), 4, 0}), "stride 0"));
  CHECK(complains(problem({a.data(), 2, 4}, {nullptr, 4}), "sums has no data"));
  testing::synchronise();
}

}  // namespace
