// oneDNN's product by itself: in every layout, arranged and not, on one thread, whatever OpenMP was
// set to.

#include <prospect/cpu/gemm_onednn.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <iterator>
#include <thread>
#include <vector>

#include "catch.hpp"
#include "random.hpp"

namespace {

using namespace prospect::cpu;
using prospect::bfloat16;
using prospect::matrix_view;
using testing::random_source;

/// A matrix inside a wider one, whose other columns nobody may touch.
template <class S>
struct padded {
  padded(random_source& random, std::int64_t row_count, std::int64_t column_count)
      : rows{row_count},
        columns{column_count},
        pitch{column_count + random.integer(0, 9)},
        memory(static_cast<std::size_t>(rows * pitch)) {
    for (auto& x : memory) x = prospect::store<S>(static_cast<float>(random.normal(1)));
  }
  S& at(std::int64_t i, std::int64_t j) { return memory[static_cast<std::size_t>(i * pitch + j)]; }
  matrix_view<S> view() { return {memory.data(), rows, columns, pitch}; }

  std::int64_t rows, columns, pitch;
  std::vector<S> memory;
};

template <class S>
void check_product(random_source& random, std::int64_t m, std::int64_t n, std::int64_t k,
                   bool a_transposed, bool b_transposed, bool accumulate) {
  CAPTURE(m, n, k, a_transposed, b_transposed, accumulate);
  padded<S> a{random, a_transposed ? k : m, a_transposed ? m : k};
  padded<S> b{random, b_transposed ? n : k, b_transposed ? k : n};
  const padded<float> before{random, m, n};
  const auto check = [&](padded<float> c) {
    padded<float> was = before;
    double worst = 0;
    for (std::int64_t i = 0; i < m; ++i) {
      for (std::int64_t j = 0; j < n; ++j) {
        double sum = accumulate ? was.at(i, j) : 0.0F, terms = std::abs(sum);
        for (std::int64_t l = 0; l < k; ++l) {
          const double x = prospect::load(a_transposed ? a.at(l, i) : a.at(i, l));
          const double y = prospect::load(b_transposed ? b.at(j, l) : b.at(l, j));
          sum += x * y;
          terms += std::abs(x * y);
        }
        const double error = std::abs(c.at(i, j) - sum) / terms;
        if (!(error <= worst)) worst = error;  // NaN is the worst
        was.at(i, j) = c.at(i, j);
      }
    }
    CHECK(worst <= 1e-6);
    CHECK(c.memory == was.memory);  // beside it nothing was written
  };
  const gemm_operand<S> left{a.view(), a_transposed}, right{b.view(), b_transposed};
  padded<float> c = before;
  onednn_gemm{}(left, right, c.view(), accumulate);
  check(c);
  if (a_transposed) return;
  // By blocks of as many rows as is best, or of others.
  const std::int64_t rows = std::min(onednn_gemm{}.arranged_rows<S>(), m);
  CHECK(rows > 0);
  const auto times_b = onednn_gemm{}.arrange(right);
  c = before;
  for (std::int64_t first = 0; first < m;) {
    const std::int64_t left_over = m - first;
    const std::int64_t here =
        random.chance(0.5) ? std::min(rows, left_over) : random.integer(1, left_over);
    times_b(matrix_view<const S>{&a.at(first, 0), here, k, a.pitch},
            matrix_view<float>{&c.at(first, 0), here, n, c.pitch}, accumulate);
    first += here;
  }
  check(c);
}

}  // namespace

TEMPLATE_TEST_CASE("oneDNN's product is right in every layout", "[gemm]", float, bfloat16) {
  random_source random{791};
  CAPTURE(random.seed());
  // More shapes than are kept, and all of them twice.
  for (int round = 0; round < 2; ++round) {
    for (const auto& [m, n, k] : {std::array<std::int64_t, 3>{24, 5, 7},
                                  {1, 1, 1},
                                  {48, 1024, 40},
                                  {480, 33, 64},
                                  {7, 64, 500},
                                  {1, 130, 2}}) {
      for (int kind = 0; kind < 8; ++kind) {
        check_product<TestType>(random, m, n, k, kind & 1, kind & 2, kind & 4);
      }
    }
  }
}

TEMPLATE_TEST_CASE("what is arranged lies as oneDNN's own way there leaves it", "[gemm]", float,
                   bfloat16) {
  constexpr auto type =
      std::same_as<TestType, float> ? dnnl::memory::data_type::f32 : dnnl::memory::data_type::bf16;
  using namespace prospect::cpu::detail;
  random_source random{794};
  const dnnl::engine engine{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream{engine};
  int known = 0, all = 0;
  for (const auto& [rows, columns] : {std::array<std::int64_t, 2>{64, 64},
                                      {960, 128},
                                      {140, 1024},
                                      {33, 70},
                                      {16, 7},
                                      {1, 1},
                                      {100, 98},
                                      {70, 33}}) {
    for (const bool transposed : {false, true}) {
      CAPTURE(rows, columns, transposed);
      padded<TestType> b{random, rows, columns};
      const onednn_matrix of_b{type, rows, columns, b.pitch, transposed};
      const std::int64_t inner = transposed ? columns : rows, outer = transposed ? rows : columns;
      const onednn_shape shape{{type, 96, inner, inner, false},
                               of_b,
                               {dnnl::memory::data_type::f32, 96, outer, outer, false},
                               false,
                               96};
      const dnnl::memory::desc layout = shape.description_of_b(engine);
      const onednn_layout ours{layout};
      ++all;
      if (!ours.known()) continue;
      ++known;
      dnnl::memory from{of_b.description(), engine, b.memory.data()}, want{layout, engine};
      std::vector<std::byte> got(layout.get_size(), std::byte{0x5a});
      std::memset(want.get_data_handle(), 0x5a, got.size());
      dnnl::reorder{from, want}.execute(stream, from, want);
      stream.wait();
      ours.fill(b.memory.data(), b.pitch, transposed, got.data());
      CHECK(std::memcmp(got.data(), want.get_data_handle(), got.size()) == 0);
    }
  }
  CHECK(known == all);
}

TEST_CASE("a double's product is Eigen's", "[gemm]") {
  const std::vector<double> a{1, 2, 3, 4}, b{5, 6, 7, 8};
  std::vector<double> c(4), want(4);
  const auto multiply = [&](const auto& gemm, std::vector<double>& to) {
    gemm(gemm_operand<double>{{a.data(), 2, 2}}, gemm_operand<double>{{b.data(), 2, 2}, true},
         matrix_view<double>{to.data(), 2, 2}, false);
  };
  multiply(onednn_gemm{}, c);
  multiply(eigen_gemm{}, want);
  CHECK(c == want);
}

TEST_CASE("which products of bf16 are narrow is asked, and answered by the processor", "[gemm]") {
  const narrow_products most = onednn_gemm{}.narrow<bfloat16>();
  CHECK((most == narrow_products::all || most == narrow_products::none));
  CHECK(onednn_gemm{narrow_products::none}.narrow<bfloat16>() == narrow_products::none);
  if (most == narrow_products::all) {
    CHECK(onednn_gemm{narrow_products::of_logits}.narrow<bfloat16>() == narrow_products::of_logits);
  }
  CHECK(onednn_gemm{}.narrow<prospect::float16>() == narrow_products::none);
}

#if DNNL_CPU_RUNTIME == DNNL_RUNTIME_OMP && defined(__linux__)
TEST_CASE("a product runs on one thread and leaves OpenMP's count as it was", "[gemm]") {
  random_source random{792};
  // Those that OpenMP started would still be there.
  const auto threads_of_process = [] {
    const std::filesystem::directory_iterator all{"/proc/self/task"};
    return std::distance(begin(all), end(all));
  };
  const auto there = threads_of_process();
  const int before = omp_get_max_threads();
  for (const int threads : {7, 1}) {
    omp_set_num_threads(threads);
    check_product<float>(random, 480, 512, 256, false, true, false);
    check_product<bfloat16>(random, 480, 512, 256, false, true, false);
    CHECK(omp_get_max_threads() == threads);
  }
  omp_set_num_threads(before);
  CHECK(threads_of_process() <= there);
}
#endif

TEST_CASE("matrices that do not fit are oneDNN's error", "[gemm]") {
  const std::vector<float> x(6);
  std::vector<float> c(6, 7.0F);
  const gemm_operand<float> wide{{x.data(), 2, 3}};
  CHECK_THROWS_AS(onednn_gemm{}(wide, wide, matrix_view<float>{c.data(), 2, 3}, false),
                  dnnl::error);
  CHECK(c == std::vector<float>(6, 7.0F));
}

TEST_CASE("a sum of nothing is 0, or what was there", "[gemm]") {
  const float x = 1;
  std::vector<float> c(4, 7.0F);
  const matrix_view<float> to{c.data(), 2, 2};
  const gemm_operand<float> a{{&x, 2, 0}}, b{{&x, 0, 2}};
  onednn_gemm{}(a, b, to, true);
  CHECK(c == std::vector<float>(4, 7.0F));
  onednn_gemm{}(a, b, to, false);
  CHECK(c == std::vector<float>(4, 0.0F));
  c.assign(4, 7.0F);
  const auto times_b = onednn_gemm{}.arrange(b);
  times_b(a.matrix, to, true);
  CHECK(c == std::vector<float>(4, 7.0F));
  times_b(a.matrix, to, false);
  CHECK(c == std::vector<float>(4, 0.0F));
}

TEST_CASE("several threads multiply at once, each with products of its own", "[gemm]") {
  random_source random{793};
  padded<bfloat16> a{random, 96, 200}, b{random, 200, 300};
  const auto product = [&] {
    std::vector<float> c(96 * 300);
    onednn_gemm{}(gemm_operand<bfloat16>{a.view()}, gemm_operand<bfloat16>{b.view()},
                  matrix_view<float>{c.data(), 96, 300}, false);
    return c;
  };
  const std::vector<float> want = product();
  std::vector<std::vector<float>> got(4);
  {
    std::vector<std::thread> threads;
    for (auto& c : got) {
      threads.emplace_back([&] {
        for (int i = 0; i < 20; ++i) c = product();
      });
    }
    for (auto& t : threads) t.join();
  }
  for (const auto& c : got) CHECK(c == want);
}
