// Eigen objects viewed as rows and logits: strides, pitch, and what must not compile.
#include "catch.hpp"

#include <prospect/adapters/eigen.hpp>
#include <prospect/cpu/sequences.hpp>
#include <prospect/cpu/tokens.hpp>
#include <prospect/losses/paired/dpo.hpp>

#include <vector>

namespace {

using logits_matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

template <class X>
concept has_row = requires(X&& x) { prospect::adapters::row(std::forward<X>(x)); };
template <class X>
concept has_matrix = requires(X&& x) { prospect::adapters::matrix(std::forward<X>(x)); };

static_assert(has_row<Eigen::VectorXf&>);
static_assert(has_row<Eigen::Map<Eigen::VectorXf>>);
static_assert(!has_row<Eigen::VectorXf>, "a temporary would be gone before it is read");
static_assert(!has_row<decltype(Eigen::VectorXf{} + Eigen::VectorXf{})>);
static_assert(!has_row<Eigen::MatrixXf&>);
static_assert(has_matrix<logits_matrix&>);
static_assert(!has_matrix<Eigen::MatrixXf&>, "column-major rows are not contiguous");

}  // namespace

TEST_CASE("a row of a column-major Eigen matrix is a strided row") {
  Eigen::MatrixXf sums(4, 3);  // rows: policy chosen and rejected, reference chosen and rejected
  sums << -10, -20, -30, -11, -19, -33, -9, -21, -30, -12, -18, -30;
  Eigen::VectorXf loss(3);
  const auto row = [&](int i) { return prospect::adapters::row(sums.row(i)); };
  REQUIRE(row(0).stride() == 4);

  const prospect::paired_batch<float> strided{.policy_chosen = row(0),
                                              .policy_rejected = row(1),
                                              .reference_chosen = row(2),
                                              .reference_rejected = row(3)};
  prospect::cpu::evaluate<float>(prospect::dpo{}, strided, {.loss = prospect::adapters::row(loss)});

  for (int i = 0; i < 3; ++i) {
    const float margin = 0.1F * ((sums(0, i) - sums(2, i)) - (sums(1, i) - sums(3, i)));
    CHECK_THAT(loss(i), WithinRel(std::log1p(std::exp(-margin)), 1e-6F));
  }
}

TEST_CASE("rows and matrices of Eigen's keep every size and reach their last element") {
  Eigen::MatrixXf columns(4, 3);
  columns << 0, 1, 2, 10, 11, 12, 20, 21, 22, 30, 31, 32;
  const auto across = prospect::adapters::row(columns.row(3));
  CHECK(across.size() == 3);
  CHECK(across[2] == 32);
  const auto down = prospect::adapters::row(columns.col(1));
  CHECK(down.size() == 4);
  CHECK(down.stride() == 1);
  CHECK(down[3] == 31);
  const Eigen::Map<Eigen::VectorXf, 0, Eigen::InnerStride<>> every_other(columns.data(), 6,
                                                                         Eigen::InnerStride<>(2));
  CHECK(prospect::adapters::row(every_other)[5] == columns.data()[10]);

  logits_matrix whole(3, 5);
  whole.setConstant(1);
  whole(2, 4) = 7;
  const auto logits = prospect::adapters::matrix(whole);
  CHECK(logits.rows == 3);
  CHECK(logits.columns == 5);
  CHECK(logits.pitch == 5);
  CHECK(logits.row(2)[4] == 7);
  const auto part = prospect::adapters::matrix(whole.block(1, 2, 2, 3));
  CHECK(part.rows == 2);
  CHECK(part.columns == 3);
  CHECK(part.pitch == 5);
  CHECK(part.row(1)[2] == 7);
}

TEST_CASE("a block of a row-major Eigen matrix is logits with a pitch") {
  logits_matrix padded = logits_matrix::Constant(2, 8, 1e9F);
  auto logits = padded.leftCols(5);
  logits.setZero();
  const std::vector<int> targets{1, 4};
  std::vector<float> log_prob(2);
  REQUIRE(prospect::adapters::matrix(logits).pitch == 8);

  prospect::cpu::token_log_probs<float>(prospect::adapters::matrix(logits), targets,
                                        {.log_prob = log_prob});

  for (const float l : log_prob) CHECK_THAT(l, WithinRel(-std::log(5.0F), 1e-6F));
}

TEST_CASE("an Eigen matrix of one row has no pitch") {
  std::vector<float> data{0, 1, 2, 3, 4, 5, 6};
  const Eigen::Map<const logits_matrix, 0, Eigen::OuterStride<>> one_row{data.data(), 1, 7,
                                                                         Eigen::OuterStride<>{1}};
  const auto logits = prospect::adapters::matrix(one_row);
  CHECK(logits.pitch == 7);
  CHECK(logits.row(0)[6] == 6);
}
