// What the launchers on tokens refuse, by the name of the argument and before any work: the twin of
// tests/cpu/token_checks_test.cpp.
#include <cstdint>
#include <limits>
#include <string_view>
#include <vector>

#include "catch.hpp"
#include "cuda/token_cases.hpp"

namespace {

namespace gpu = prospect::cuda;
using prospect::index_row;
using prospect::matrix_view;
using prospect::sequence_layout;
using prospect::strided_span;
using prospect::token_outputs;
using testing::device_array;
using testing::device_results;
using testing::same_bits;

constexpr std::int64_t most = std::numeric_limits<std::int64_t>::max();

bool names(const char* why, std::string_view argument) {
  REQUIRE(why != nullptr);
  CAPTURE(why);
  return std::string_view{why}.find(argument) != std::string_view::npos;
}

}  // namespace

TEST_CASE("arguments that the host can see are checked, by name, before any work") {
  const device_array<float> logits(12);
  const device_array<float> other(12);
  const device_array<std::int64_t> targets{std::vector<std::int64_t>{0, 1, 2}};
  const device_results r{3};
  const index_row t = targets.input();
  const matrix_view<float> x{logits.data(), 3, 4};
  const auto refused = [&](const matrix_view<float>& m, const index_row& y,
                           const token_outputs<float>& out, const prospect::token_options& options,
                           std::string_view argument) {
    CHECK(names(gpu::problem(m, y, out, options), argument));
    CHECK(gpu::token_log_probs<float>(m, y, out, options, {}, nullptr) == cudaErrorInvalidValue);
    CHECK(gpu::token_log_probs_and_gradient<float>(m, y, out, options, nullptr) ==
          cudaErrorInvalidValue);
  };
  refused({logits.data(), -1, 4}, t, r.out(), {}, "negative");
  refused({logits.data(), 3, 4, 3}, t, r.out(), {}, "logits have a pitch");
  refused({nullptr, 3, 4}, t, r.out(), {}, "logits have no data");
  refused({logits.data(), 2, 4}, t, r.out(), {}, "targets");
  refused(x, t, r.out(), {.temperature = 0}, "temperature");
  refused(x, t, r.out(), {.soft_cap = -1}, "soft_cap");
  refused(x, t, r.out(), {.first_token = 1, .vocabulary = 4}, "first_token");
  refused(x, t, r.out(), {.vocabulary = 8}, "vocabulary");
  refused(x, t, r.out(), {.vocabulary = -1}, "vocabulary is negative");
  refused(x, t, r.out(), {.temperature = 1e-300}, "temperature");
  refused(x, t, r.out(), {.soft_cap = 1e-300}, "soft_cap");
  refused(x, t, r.out(), {.inverse_temperatures = r.log_prob.input().slice(0, 2)},
          "inverse_temperatures");
  refused(x, t, r.out(), {.mask = r.argmax.input().slice(0, 2)}, "mask");
  const std::int32_t* const nowhere = nullptr;
  refused(x, t, r.out(), {.mask = {nowhere, 3}}, "mask");
  refused(x, {nowhere, 3}, r.out(), {}, "targets");
  token_outputs<float> out = r.out();
  out.entropy = out.entropy.slice(0, 2);
  refused(x, t, out, {}, "entropy");
  out = r.out();
  out.lse = {out.lse.data(), 3, 0};
  refused(x, t, out, {}, "lse");

  const strided_span<const float> row = r.log_prob.input();
  const strided_span<const double> lse = r.lse.input();
  const auto gradient_refused = [&](const matrix_view<float>& to, const auto& log_prob,
                                    const auto& l, const auto& a, const auto& b,
                                    std::string_view argument) {
    const prospect::token_coefficients<float> c{.softmax = a, .onehot = b};
    CHECK(names(gpu::problem(x, to, t, log_prob, l, c, {}), argument));
    CHECK(gpu::logits_gradient<float>(x, to, t, log_prob, l, c, {}, nullptr) ==
          cudaErrorInvalidValue);
  };
  const matrix_view<float> to{other.data(), 3, 4};
  CHECK(names(gpu::problem(x, to, t, row, lse, row.slice(0, 2), {}), "d_token"));
  CHECK(gpu::logits_gradient<float>(x, to, t, row, lse, row.slice(0, 2), {}, nullptr) ==
        cudaErrorInvalidValue);
  gradient_refused({other.data(), 2, 4}, row, lse, row, row, "gradient");
  gradient_refused({other.data(), 3, 4, 2}, row, lse, row, row, "gradient");
  gradient_refused({nullptr, 3, 4}, row, lse, row, row, "gradient");
  gradient_refused(to, row.slice(0, 2), lse, row, row, "log_prob");
  gradient_refused(to, row, lse.slice(0, 2), row, row, "lse");
  gradient_refused(to, row, lse, row.slice(0, 2), row, "softmax");
  gradient_refused(to, row, lse, row, row.slice(0, 2), "onehot");
  const auto third_refused = [&](const auto& d_entropy, const auto& entropy,
                                 std::string_view argument) {
    const prospect::token_coefficients<float> c{
        .softmax = row, .onehot = row, .d_entropy = d_entropy, .entropy = entropy};
    CHECK(names(gpu::problem(x, to, t, row, lse, c, {}), argument));
    CHECK(gpu::logits_gradient<float>(x, to, t, row, lse, c, {}, nullptr) == cudaErrorInvalidValue);
  };
  third_refused(row.slice(0, 2), row, "coefficients.d_entropy");
  third_refused(row, row.slice(0, 2), "coefficients.entropy");
  third_refused(row, strided_span<const float>{}, "coefficients.entropy");
  third_refused(strided_span<const float>{}, row, "coefficients.d_entropy");
  CHECK(gpu::logits_gradient<float>(x, t, row, lse, row.slice(0, 2), {}, nullptr) ==
        cudaErrorInvalidValue);
  CHECK(names(gpu::problem(x, row.slice(0, 2)), "factors"));
  CHECK(gpu::scale_rows<float>(x, row.slice(0, 2), nullptr) == cudaErrorInvalidValue);

  const auto wrong = sequence_layout::padded(2, 2);
  const device_array<double> two(2);
  CHECK(names(gpu::problem(row, t, wrong, {}), "layout"));
  CHECK(gpu::sequence_sums<float>(row, t, wrong, {}, nullptr) == cudaErrorInvalidValue);
  CHECK(gpu::sequence_sums<float>(row, t, sequence_layout::padded(3, 1), {.log_prob = two.row()},
                                  nullptr) == cudaErrorInvalidValue);
  CHECK(gpu::spread<float>(two.input(), t, sequence_layout::padded(3, 1), r.log_prob.row(),
                           nullptr) == cudaErrorInvalidValue);
  const device_array<std::int32_t> narrow(2);
  CHECK(gpu::shift_targets(t, sequence_layout::padded(1, 3), narrow.row(), nullptr) ==
        cudaErrorInvalidValue);
  testing::synchronise();
  CHECK(same_bits(logits.host(), device_array<float>(12).host()));
  CHECK(same_bits(r.log_prob.host(), device_results{3}.log_prob.host()));
}

TEST_CASE("matrices and rows that no memory holds are refused on the host") {
  const device_array<float> memory(64);
  const device_array<std::int32_t> zero{std::vector<std::int32_t>{0}};
  const device_array<double> lse(1);
  float* const x = memory.data();
  const auto refused = [&](const matrix_view<float>& logits, std::string_view why) {
    CAPTURE(logits.rows, logits.columns, logits.pitch);
    const index_row targets{zero.data(), logits.rows, 0};
    const strided_span<const float> row{x, logits.rows, 0};
    const strided_span<const double> row_lse{lse.data(), logits.rows, 0};
    CHECK(names(gpu::problem(logits, targets, token_outputs<float>{}, {}), why));
    CHECK(names(gpu::problem(logits, logits, targets, row, row_lse, row, {}), why));
    CHECK(names(gpu::problem(logits, targets, strided_span<prospect::vocabulary_partial>{}, {}),
                why));
    CHECK(names(gpu::problem(logits, row), "matrix"));
    CHECK(gpu::token_log_probs_and_gradient<float>(logits, targets, {}, {}, nullptr) ==
          cudaErrorInvalidValue);
    CHECK(gpu::scale_rows<float>(logits, row, nullptr) == cudaErrorInvalidValue);
  };
  refused({x, most / 2, 1, 1}, "logits are");
  refused({x, most / 2, 0, 0}, "logits are");
  refused({x, 2, 8, (std::int64_t{1} << 46) + 3}, "logits are");
  refused({x, 2, 8, most}, "logits are");
  refused({x, 3, 8, std::int64_t{1} << 62}, "logits are");
  refused({x, 2, std::int64_t{1} << 62, std::int64_t{1} << 62}, "logits are");
  refused({x, 2, -8, 8}, "logits have a negative");
  refused({reinterpret_cast<float*>(reinterpret_cast<char*>(x) + 2), 2, 8, 8}, "logits are");
  refused({x, 2, (std::int64_t{1} << 30) + 1, (std::int64_t{1} << 30) + 1}, "columns");
  refused({x, (std::int64_t{1} << 27) + 1, 8, 8}, "rows");
  // 2^31 blocks of eight tiles.
  refused({x, std::int64_t{1} << 27, std::int64_t{1} << 18, std::int64_t{1} << 18}, "tiles");

  const matrix_view<float> good{x, 2, 8};
  const index_row targets{zero.data(), 2, 0};
  constexpr std::int64_t far = std::int64_t{1} << 62;
  CHECK(names(gpu::problem(good, targets, {.log_prob = {x, 2, far}}, {}), "log_prob"));
  CHECK(names(gpu::problem(good, targets, {.lse = {nullptr, 2}}, {}), "lse"));
  CHECK(names(gpu::problem(good, {zero.data(), 2, far}, token_outputs<float>{}, {}), "targets"));
  CHECK(names(gpu::problem(good, matrix_view<float>{x, 2, 8, most}, targets, {x, 2},
                           {lse.data(), 2, 0}, strided_span<const float>{x, 2}, {}),
              "gradient"));
  CHECK(names(gpu::problem(good, strided_span<const float>{x, 2, -far}), "factors"));
  // One row has no pitch, but the padding that is written.
  const matrix_view<float> one{x, 1, 8, std::int64_t{1} << 60};
  CHECK(gpu::problem(one, {zero.data(), 1}, token_outputs<float>{}, {}) == nullptr);
  CHECK(names(gpu::problem(one, {zero.data(), 1}, token_outputs<float>{}, {.zero_padding = true}),
              "logits"));
  CHECK(gpu::problem(matrix_view<float>{x, 1, 8, 1}, {zero.data(), 1}, token_outputs<float>{},
                     {.zero_padding = true}) == nullptr);

  const device_array<prospect::vocabulary_partial> partials(2);
  CHECK(names(gpu::problem({partials.data(), 0, 2}, targets, {}), "parts"));
  CHECK(names(gpu::problem({partials.data(), 2, 2, most}, targets, {}), "parts"));
  CHECK(names(gpu::problem({partials.data(), 1, 2}, targets, {}, {x, 3}), "mask"));
  CHECK(names(gpu::problem({partials.data(), 1, 1}, targets, {}), "targets"));
}

TEST_CASE("layouts that overflow or count too far are refused on the host") {
  const device_array<float> x(1);
  const device_array<std::int32_t> zero(1);
  const device_array<std::int32_t> tokens(1);
  const device_array<double> d(1);
  const auto problem = [&](const sequence_layout& layout, std::int64_t rows,
                           const prospect::mask_row& mask = {}) {
    return gpu::problem(strided_span<const float>{x.data(), rows, 0}, {zero.data(), rows, 0},
                        layout, {.tokens = tokens.row()}, mask);
  };
  constexpr std::int64_t n = (std::int64_t{1} << 31) + 3;
  CHECK(names(problem(sequence_layout::padded(1, n), n), "tokens"));
  CHECK(problem(sequence_layout::padded(1, n - 4), n - 4) == nullptr);
  CHECK(names(problem(sequence_layout::padded(std::int64_t{1} << 62, 4), 0), "layout"));
  CHECK(names(problem(sequence_layout::padded(4, std::int64_t{1} << 62), 0), "layout"));
  CHECK(names(problem(sequence_layout::padded(-1, 4), 4), "layout"));
  const std::int64_t* const nowhere = nullptr;
  CHECK(names(problem(sequence_layout::packed({nowhere, 2}), 4), "layout"));
  CHECK(names(problem(sequence_layout::ranges({zero.data(), 1}, {zero.data(), 2}), 4), "layout"));
  CHECK(names(problem(sequence_layout::padded(1, 4), 4, {x.data(), 3}), "mask"));
  CHECK(names(gpu::problem(d.input(), {zero.data(), 4, 0}, sequence_layout::padded(1, 4),
                           strided_span<float>{x.data(), 4, 0}),
              "d_token"));
  CHECK(names(gpu::problem(d.input(), {nowhere, 4}, sequence_layout::padded(1, 4),
                           strided_span<float>{x.data(), 4}),
              "targets"));
  CHECK(names(gpu::problem({nowhere, 4}, sequence_layout::padded(1, 4),
                           strided_span<std::int32_t>{zero.data(), 4}),
              "labels"));
}
