// mdspan-shaped types viewed as rows and logits. No standard library of this C++ has one, so a
// minimal type of the same shape stands in.
#include "catch.hpp"

#include <prospect/adapters/mdspan.hpp>

#include <array>

namespace {

template <std::size_t Rank>
struct fake_mdspan {
  using element_type = float;
  static constexpr std::size_t rank() { return Rank; }
  float* data;
  std::array<long, Rank> extents;
  std::array<long, Rank> strides;
  float* data_handle() const { return data; }
  long extent(std::size_t i) const { return extents[i]; }
  long stride(std::size_t i) const { return strides[i]; }
};

}  // namespace

TEST_CASE("a rank-1 mdspan keeps its stride") {
  std::array<float, 6> data{0, 1, 2, 3, 4, 5};
  const auto row = prospect::adapters::row(fake_mdspan<1>{data.data(), {3}, {2}});
  REQUIRE(row.size() == 3);
  CHECK(row[0] == 0);
  CHECK(row[2] == 4);
}

TEST_CASE("a rank-2 mdspan becomes logits with a pitch, or is refused") {
  std::array<float, 8> data{};
  const auto logits = prospect::adapters::matrix(fake_mdspan<2>{data.data(), {2, 3}, {4, 1}});
  CHECK(logits.rows == 2);
  CHECK(logits.columns == 3);
  CHECK(logits.row(1) == data.data() + 4);
  CHECK_THROWS_AS(prospect::adapters::matrix(fake_mdspan<2>{data.data(), {2, 3}, {1, 2}}),
                  std::invalid_argument);
}

TEST_CASE("a rank-2 mdspan of one row has no pitch, and of one column no stride") {
  std::array<float, 8> data{0, 1, 2, 3, 4, 5, 6, 7};
  const auto one_row = prospect::adapters::matrix(fake_mdspan<2>{data.data(), {1, 7}, {1, 1}});
  CHECK(one_row.pitch == 7);
  CHECK(one_row.row(0)[6] == 6);
  const auto one_column = prospect::adapters::matrix(fake_mdspan<2>{data.data(), {3, 1}, {2, 9}});
  CHECK(one_column.columns == 1);
  CHECK(one_column.row(2)[0] == 4);
}
