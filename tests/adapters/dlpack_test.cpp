// DLPack tensors viewed as rows and logits: byte offsets, strides, and every refusal.
#if __has_include(<dlpack/dlpack.h>)
#include "catch.hpp"

#include <prospect/adapters/dlpack.hpp>

#include <array>

namespace {

struct tensor {
  std::array<float, 12> data{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
  std::array<std::int64_t, 2> shape{};
  std::array<std::int64_t, 2> strides{};
  DLTensor dl{};

  explicit tensor(int rank) {
    dl.data = data.data();
    dl.device = {kDLCPU, 0};
    dl.ndim = rank;
    dl.dtype = {kDLFloat, 32, 1};
    dl.shape = shape.data();
    dl.strides = strides.data();
  }
};

}  // namespace

TEST_CASE("a DLPack vector keeps its offset and stride") {
  tensor t(1);
  t.shape[0] = 3;
  t.strides[0] = -2;
  t.dl.byte_offset = 6 * sizeof(float);
  const auto row = prospect::adapters::row<const float>(t.dl);
  REQUIRE(row.size() == 3);
  CHECK(row[0] == 6);
  CHECK(row[2] == 2);
  t.dl.strides = nullptr;
  CHECK(prospect::adapters::row<float>(t.dl)[1] == 7);
}

TEST_CASE("a DLPack matrix becomes logits with a pitch") {
  tensor t(2);
  t.shape = {3, 2};
  t.strides = {4, 1};
  const auto logits = prospect::adapters::matrix<float>(t.dl);
  CHECK(logits.columns == 2);
  CHECK(logits.row(2)[1] == 9);
  t.strides = {1, 3};
  CHECK_THROWS_AS(prospect::adapters::matrix<float>(t.dl), std::invalid_argument);
  t.dl.strides = nullptr;
  CHECK(prospect::adapters::matrix<float>(t.dl).pitch == 2);
}

TEST_CASE("what a DLPack tensor is not, it is not taken for") {
  tensor t(1);
  t.shape[0] = 3;
  t.strides[0] = 1;
  CHECK_THROWS_AS(prospect::adapters::row<double>(t.dl), std::invalid_argument);
  CHECK_THROWS_AS(prospect::adapters::row<prospect::bfloat16>(t.dl), std::invalid_argument);
  CHECK_THROWS_AS(prospect::adapters::row<std::int32_t>(t.dl), std::invalid_argument);
  CHECK_THROWS_AS(prospect::adapters::matrix<float>(t.dl), std::invalid_argument);
  t.dl.device.device_type = kDLOpenCL;
  CHECK_THROWS_AS(prospect::adapters::row<float>(t.dl), std::invalid_argument);
}
#endif
