// Rows and matrices of the C surface: what their initialisers make, and what they claim.
#include <prospect/c/prospect.h>
#include <prospect/config.hpp>

#include <array>
#include <cstdint>
#include <string>

#include "c/surface.hpp"
#include "catch.hpp"

TEST_CASE("a row has the dtype of the pointer that it is made from") {
  const float f[2]{};
  double d[2]{};
  const std::int32_t i[2]{};
  std::int64_t l[2]{};
  const std::uint8_t u[2]{};
  bool b[2]{};
  CHECK(PROSPECT_ROW(f, 2).dtype == PROSPECT_F32);
  CHECK(PROSPECT_ROW(d, 2).dtype == PROSPECT_F64);
  CHECK(PROSPECT_ROW(i, 2).dtype == PROSPECT_I32);
  CHECK(PROSPECT_ROW(l, 2).dtype == PROSPECT_I64);
  CHECK(PROSPECT_ROW(u, 2).dtype == PROSPECT_U8);
  CHECK(PROSPECT_ROW(b, 2).dtype == PROSPECT_BOOL);
  const prospect_row row = PROSPECT_ROW(d, 2);
  CHECK(row.data == d);
  CHECK(row.size == 2);
  CHECK(row.stride == 1);
  CHECK(row.reserved == 0);
  const prospect_matrix matrix = PROSPECT_MATRIX(d, 1, 2);
  CHECK(matrix.data == d);
  CHECK(matrix.rows == 1);
  CHECK(matrix.columns == 2);
  CHECK(matrix.pitch == 2);
  CHECK(matrix.dtype == PROSPECT_F64);
}

TEST_CASE("a slice of a row starts where its elements are, whatever they are") {
  std::array<double, 12> block{};
  prospect_row row = PROSPECT_ROW(block.data() + 11, 6);
  row.stride = -2;
  const prospect_row half = prospect_row_slice(row, 3, 2);
  CHECK(half.data == block.data() + 5);
  CHECK(half.size == 2);
  CHECK(half.stride == -2);
  CHECK(half.dtype == PROSPECT_F64);
  std::array<std::uint16_t, 4> narrow{};
  CHECK(prospect_row_slice(prospect_row_of(narrow.data(), 4, PROSPECT_BF16), 2, 2).data ==
        narrow.data() + 2);
}

TEST_CASE("every dtype has a size, and no other number has") {
  const std::size_t bytes[] = {4, 8, 2, 2, 4, 8, 1, 1};
  for (prospect_dtype d = 0; d < 8; ++d) CHECK(prospect_dtype_size(d) == bytes[d]);
  CHECK(prospect_dtype_size(8) == 0);
  CHECK(prospect_dtype_size(-1) == 0);
}

TEST_CASE("an initialised struct is zero but for its size") {
  prospect_pairs pairs;
  std::memset(&pairs, 0xff, sizeof pairs);
  PROSPECT_INIT(pairs);
  prospect_pairs zero{};
  zero.struct_size = sizeof zero;
  CHECK(std::memcmp(&pairs, &zero, sizeof zero) == 0);
}

TEST_CASE("a head path that is not there says so") {
  prospect_error error{};
#if defined(PROSPECT_WITH_C_HEAD)
  const prospect_status expected = PROSPECT_INVALID_ARGUMENT;
  const char* const words = "step is NULL";
#else
  const prospect_status expected = PROSPECT_UNSUPPORTED;
  const char* const words = "built without Eigen";
#endif
  CHECK(prospect_head_step_cpu(nullptr, nullptr, &error) == expected);
  CHECK(std::string{error.message}.find(words) != std::string::npos);
}

TEST_CASE("the library knows its version, and a sentence for each status") {
  CHECK(prospect_version() ==
        PROSPECT_VERSION_MAJOR * 10000 + PROSPECT_VERSION_MINOR * 100 + PROSPECT_VERSION_PATCH);
  const auto says = [](prospect_status s) { return std::string{prospect_status_string(s)}; };
  CHECK(says(PROSPECT_OK) == "ok");
  CHECK(says(PROSPECT_INVALID_ARGUMENT) == "invalid argument");
  CHECK(says(PROSPECT_UNKNOWN_NAME) == "unknown name");
  CHECK(says(PROSPECT_UNSUPPORTED) == "unsupported");
  CHECK(says(PROSPECT_INTERNAL_ERROR) == "internal error");
  CHECK(says(PROSPECT_ABSENT) == "absent");
  CHECK(says(PROSPECT_CUDA_ERROR + 1) == "CUDA error");
  CHECK(says(PROSPECT_CUDA_ERROR_LAST) == "CUDA error");
  for (const prospect_status s : {-1, 6, int{PROSPECT_CUDA_ERROR}, PROSPECT_CUDA_ERROR_LAST + 1}) {
    CHECK(says(s) == "unknown status");
  }
}
