// DLPack tensors viewed as rows and logits: what producers export, and every refusal. Compiled once
// for each version of DLPack that is found.
#if __has_include(<dlpack/dlpack.h>)
#include "catch.hpp"

#include <prospect/adapters/dlpack.hpp>

#include <array>
#include <cstdint>
#include <limits>
#include <string>
#include <type_traits>

#include "refusals.hpp"

namespace {

using prospect::adapters::matrix;
using prospect::adapters::row;
using testing::refuses;

constexpr auto largest = std::numeric_limits<std::int64_t>::max();

struct tensor {
  std::array<float, 12> data{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
  std::array<std::int64_t, 2> shape{};
  std::array<std::int64_t, 2> strides{};
  DLTensor dl{};

  tensor(int rank, std::array<std::int64_t, 2> size, std::array<std::int64_t, 2> steps)
      : shape{size}, strides{steps} {
    dl.data = data.data();
    dl.device = {kDLCPU, 0};
    dl.ndim = rank;
    dl.dtype = {kDLFloat, 32, 1};
    dl.shape = shape.data();
    dl.strides = strides.data();
  }
  tensor(const tensor&) = delete;
  tensor& operator=(const tensor&) = delete;
};

/// Sets the type of a tensor, and says whether it can be viewed as a row of T.
template <class T>
bool viewed(tensor& t, std::uint8_t code, std::uint8_t bits, std::uint16_t lanes = 1) {
  t.dl.dtype = {code, bits, lanes};
  return testing::refusal([&] { row<T>(t.dl); }) == "accepted";
}

constexpr std::uint8_t bool_code = 6;

}  // namespace

TEST_CASE("a DLPack vector keeps its offset and stride") {
  tensor t{1, {3, 0}, {-2, 0}};
  t.dl.byte_offset = 6 * sizeof(float);
  const auto values = row<const float>(t.dl);
  REQUIRE(values.size() == 3);
  CHECK(values[0] == 6);
  CHECK(values[2] == 2);
  t.dl.strides = nullptr;
  CHECK(row<float>(t.dl)[1] == 7);
}

TEST_CASE("a DLPack matrix becomes logits with a pitch") {
  tensor t{2, {3, 2}, {4, 1}};
  const auto logits = matrix<float>(t.dl);
  CHECK(logits.columns == 2);
  CHECK(logits.row(2)[1] == 9);
  t.strides = {1, 3};
  CHECK(refuses("has rows that are not contiguous", [&] { matrix<float>(t.dl); }));
  t.strides = {1, 1};
  CHECK(refuses("has a pitch smaller than its columns", [&] { matrix<float>(t.dl); }));
  t.dl.strides = nullptr;
  CHECK(matrix<float>(t.dl).pitch == 2);
}

TEST_CASE("a DLPack matrix of one row has no pitch, and one of one column no stride") {
  for (const std::int64_t stride : {std::int64_t{1}, std::int64_t{0}, std::int64_t{-7}, largest}) {
    tensor one_row{2, {1, 7}, {stride, 1}};  // PyTorch: (1, 7) with strides (1, 1)
    const auto logits = matrix<const float>(one_row.dl);
    CHECK(logits.rows == 1);
    CHECK(logits.pitch == 7);
    CHECK(logits.row(0)[6] == 6);

    tensor one_column{2, {3, 1}, {4, stride}};
    CHECK(matrix<const float>(one_column.dl).row(2)[0] == 8);

    tensor one_element{1, {1, 0}, {stride, 0}};
    one_element.dl.byte_offset = 5 * sizeof(float);
    CHECK(row<const float>(one_element.dl)[0] == 5);
    CHECK(row<const float>(one_element.dl).stride() == 1);

    tensor nothing{2, {0, 7}, {stride, stride}};
    nothing.dl.data = nullptr;
    CHECK(matrix<const float>(nothing.dl).rows == 0);
    tensor no_columns{2, {3, 0}, {stride, stride}};
    CHECK(matrix<const float>(no_columns.dl).columns == 0);
  }
}

TEST_CASE("what a DLPack tensor is not, it is not taken for") {
  tensor t{1, {3, 0}, {1, 0}};
  CHECK(viewed<float>(t, kDLFloat, 32));
  CHECK_FALSE(viewed<float>(t, kDLFloat, 32, 2));
  CHECK_FALSE(viewed<float>(t, kDLFloat, 32, 0));
  CHECK_FALSE(viewed<float>(t, kDLFloat, 16));
  CHECK_FALSE(viewed<float>(t, kDLInt, 32));
  CHECK(viewed<double>(t, kDLFloat, 64));
  CHECK(viewed<prospect::bfloat16>(t, kDLBfloat, 16));
  CHECK_FALSE(viewed<prospect::bfloat16>(t, kDLFloat, 16));
  CHECK(viewed<prospect::float16>(t, kDLFloat, 16));
  CHECK_FALSE(viewed<prospect::float16>(t, kDLBfloat, 16));
  CHECK(viewed<std::int32_t>(t, kDLInt, 32));
  CHECK_FALSE(viewed<std::int32_t>(t, kDLUInt, 32));
  CHECK_FALSE(viewed<std::int64_t>(t, kDLInt, 32));
  t.dl.dtype = {kDLFloat, 32, 1};
  CHECK(refuses("is no matrix", [&] { matrix<float>(t.dl); }));
  t.dl.ndim = 2;
  CHECK(refuses("is no row", [&] { row<float>(t.dl); }));
}

TEST_CASE("DLPack bools are bools, and may be read as bytes") {
  tensor t{1, {3, 0}, {1, 0}};
  CHECK(viewed<const bool>(t, bool_code, 8));
  CHECK(viewed<bool>(t, bool_code, 8));
  CHECK(viewed<const std::uint8_t>(t, bool_code, 8));
  CHECK_FALSE(viewed<std::uint8_t>(t, bool_code, 8));  // what may be written is no bool
  CHECK(viewed<std::uint8_t>(t, kDLUInt, 8));
  CHECK_FALSE(viewed<const bool>(t, kDLUInt, 8));  // a byte of 2 is none
  CHECK_FALSE(viewed<const std::int8_t>(t, bool_code, 8));
  CHECK_FALSE(viewed<const bool>(t, bool_code, 1));
}

TEST_CASE("a DLPack tensor lies on the device that is asked for") {
  tensor t{1, {3, 0}, {1, 0}};
  const auto on = [&](DLDevice where, DLDevice wanted) {
    t.dl.device = where;
    return testing::refusal([&] { row<float>(t.dl, wanted); });
  };
  const std::string elsewhere =
      "prospect: DLPack tensor lies on another device than the one asked for";
  CHECK(on({kDLCUDA, 0}, {kDLCPU, 0}) == elsewhere);
  CHECK(on({kDLOpenCL, 0}, {kDLCPU, 0}) == elsewhere);
  CHECK(on({kDLCPU, 0}, {kDLCUDA, 0}) == elsewhere);
  CHECK(on({kDLCUDA, 1}, {kDLCUDA, 0}) == elsewhere);
  CHECK(on({kDLCUDA, 1}, {kDLCUDA, 1}) == "accepted");
  CHECK(on({kDLCUDAHost, 0}, {kDLCPU, 0}) == "accepted");
  CHECK(on({kDLCPU, -1}, {kDLCPU, 0}) == "accepted");
}

TEST_CASE("a DLPack tensor that describes no memory is refused") {
  const auto problem = [](const auto& spoil, int rank = 1) {
    tensor t{rank, {3, 2}, {rank == 1 ? 1 : 2, 1}};
    spoil(t);
    return testing::refusal([&] {
      if (rank == 1) {
        row<float>(t.dl);
      } else {
        matrix<float>(t.dl);
      }
    });
  };
  const std::string tensor_is = "prospect: DLPack tensor ";
  CHECK(problem([](tensor&) {}) == "accepted");
  CHECK(problem([](tensor&) {}, 2) == "accepted");
  for (const int rank : {1, 2}) {
    CAPTURE(rank);
    CHECK(problem([](tensor& t) { t.dl.data = nullptr; }, rank) == tensor_is + "has no data");
    const auto null_with_offset = [](tensor& t) {
      t.dl.data = nullptr;
      t.dl.byte_offset = 64;
    };
    CHECK(problem(null_with_offset, rank) == tensor_is + "has no data");
    CHECK(problem([](tensor& t) { t.dl.byte_offset = 2; }, rank) ==
          tensor_is + "is not aligned to its elements");
    CHECK(problem([](tensor& t) { t.dl.byte_offset = ~std::uint64_t{3}; }, rank) ==
          tensor_is + "has a byte_offset larger than any memory");
    CHECK(problem([](tensor& t) { t.dl.shape = nullptr; }, rank) == tensor_is + "has no shape");
    CHECK(problem([](tensor& t) { t.shape[0] = -1; }, rank) == tensor_is + "has a negative size");
  }
  CHECK(problem([](tensor& t) { t.shape[1] = -1; }, 2) == tensor_is + "has a negative size");
  const std::string larger = tensor_is + "is larger than any memory";
  CHECK(problem([](tensor& t) { t.shape[0] = largest; }).starts_with(larger));
  CHECK(problem([](tensor& t) { t.strides[0] = largest; }).starts_with(larger));
  CHECK(problem([](tensor& t) { t.strides[0] = largest; }, 2).starts_with(larger));
  CHECK(problem([](tensor& t) { t.shape[0] = largest; }, 2).starts_with(larger));
}

#if defined(DLPACK_MAJOR_VERSION) && DLPACK_MAJOR_VERSION >= 1
static_assert(kDLBool == bool_code);

TEST_CASE("a versioned DLPack tensor is viewed as its flags and its version allow") {
  tensor t{2, {3, 2}, {4, 1}};
  DLManagedTensorVersioned managed{};
  managed.version = {DLPACK_MAJOR_VERSION, 9999};  // a later minor version reads the same
  managed.dl_tensor = t.dl;
  CHECK(matrix<float>(managed).row(2)[1] == 9);
  managed.flags = DLPACK_FLAG_BITMASK_IS_COPIED;
  CHECK(matrix<float>(managed).row(2)[1] == 9);
  managed.flags |= DLPACK_FLAG_BITMASK_READ_ONLY;
  CHECK(matrix<const float>(managed).row(2)[1] == 9);
  CHECK(refuses("DLPack tensor is read-only", [&] { matrix<float>(managed); }));
  CHECK(refuses("lies on another device", [&] { matrix<const float>(managed, {kDLCUDA, 0}); }));

  managed.dl_tensor.ndim = 1;
  CHECK(row<const float>(managed)[1] == 4);
  CHECK(refuses("DLPack tensor is read-only", [&] { row<float>(managed); }));
  managed.flags = 0;
  CHECK(row<float>(managed)[1] == 4);
  for (const std::uint32_t major : {0U, DLPACK_MAJOR_VERSION + 1U}) {
    managed.version.major = major;
    CHECK(refuses("is of another major version", [&] { row<const float>(managed); }));
    CHECK(refuses("is of another major version", [&] { matrix<const float>(managed); }));
  }
}
#elif defined(PROSPECT_DLPACK_1)
#error "this is not the header of DLPack 1.x"
#endif
#endif
