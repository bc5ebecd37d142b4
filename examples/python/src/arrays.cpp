#include "arrays.hpp"

namespace prospect::python {

namespace {

constexpr std::uint8_t dlpack_int = 0, dlpack_uint = 1, dlpack_float = 2, dlpack_bfloat = 4,
                       dlpack_bool = 6;

std::int32_t dtype_of(const nb::dlpack::dtype& type) {
  if (type.lanes != 1) return -1;
  const auto is = [&](std::uint8_t code, std::uint8_t bits) {
    return type.code == code && type.bits == bits;
  };
  if (is(dlpack_float, 32)) return PROSPECT_F32;
  if (is(dlpack_float, 64)) return PROSPECT_F64;
  if (is(dlpack_float, 16)) return PROSPECT_F16;
  if (is(dlpack_bfloat, 16)) return PROSPECT_BF16;
  if (is(dlpack_int, 32)) return PROSPECT_I32;
  if (is(dlpack_int, 64)) return PROSPECT_I64;
  if (is(dlpack_uint, 8)) return PROSPECT_U8;
  if (is(dlpack_bool, 8)) return PROSPECT_BOOL;
  return -1;
}

std::int32_t checked_dtype(const char* name, const nb::dlpack::dtype& type, made_of what) {
  const std::int32_t dtype = dtype_of(type);
  const bool real = dtype >= PROSPECT_F32 && dtype <= PROSPECT_BF16;
  const bool flag = dtype == PROSPECT_U8 || dtype == PROSPECT_BOOL;
  switch (what) {
    case made_of::reals:
      if (real) return dtype;
      refuse(name, "must be of float32, float64, bfloat16 or float16");
    case made_of::indices:
      if (dtype == PROSPECT_I32 || dtype == PROSPECT_I64) return dtype;
      refuse(name, "must be of int32 or int64");
    case made_of::counts:
      if (dtype == PROSPECT_I32) return dtype;
      refuse(name, "must be of int32");
    case made_of::flags:
      if (flag) return dtype;
      refuse(name, "must be of bool or uint8");
    case made_of::masks:
      break;
  }
  if (flag || dtype == PROSPECT_I32 || dtype == PROSPECT_F32) return dtype;
  refuse(name, "must be of bool, uint8, int32 or float32");
}

template <class Array>
prospect_row row_of(const char* name, const Array& array, void* data, made_of what) {
  prospect_row row{};
  row.data = data;
  row.size = static_cast<std::int64_t>(array.shape(0));
  row.stride = row.size > 1 ? array.stride(0) : 1;
  row.dtype = checked_dtype(name, array.dtype(), what);
  return row;
}

template <class Array>
prospect_matrix matrix_of(const char* name, const Array& array, void* data) {
  prospect_matrix matrix{};
  matrix.data = data;
  matrix.rows = static_cast<std::int64_t>(array.shape(0));
  matrix.columns = static_cast<std::int64_t>(array.shape(1));
  if (matrix.rows > 0 && matrix.columns > 1 && array.stride(1) != 1) {
    refuse(name, "must have rows whose elements lie side by side");
  }
  matrix.pitch = matrix.rows > 1 ? array.stride(0) : matrix.columns;
  matrix.dtype = checked_dtype(name, array.dtype(), made_of::reals);
  return matrix;
}

}  // namespace

void refuse(const std::string& name, const std::string& problem) {
  throw nb::value_error(("prospect: " + name + " " + problem).c_str());
}

template <class Array>
const Array& arrays::keep(const char* name, nb::handle array, int rank, std::vector<Array>& kept) {
  Array view;
  if (!nb::try_cast(array, view)) {
    const std::string type = nb::cast<std::string>(nb::str(array.type().attr("__name__")));
    refuse(name, std::is_same_v<Array, nb::ndarray<>>
                     ? "is no array that can be written to, but a " + type
                     : "is no array (DLPack, or the buffer protocol), but a " + type);
  }
  if (static_cast<int>(view.ndim()) != rank) {
    refuse(name, "must have " + std::to_string(rank) + (rank == 1 ? " dimension" : " dimensions") +
                     ", and has " + std::to_string(view.ndim()));
  }
  place(name, view.device_type(), view.device_id());
  return kept.emplace_back(std::move(view));
}

void* arrays::memory_of(const void* data) {
  return data == nullptr ? &nowhere_.emplace_back() : const_cast<void*>(data);
}

void arrays::place(const char* name, int type, int id) {
  // Pinned memory is the host's; managed memory is a device's, as far as a call is concerned.
  constexpr int pinned = 3;
  constexpr int managed = 13;
  if (type == pinned) type = nb::device::cpu::value;
  if (type == managed) type = nb::device::cuda::value;
  if (type != nb::device::cpu::value && type != nb::device::cuda::value) {
    refuse(name, "lies on a device that is neither the host nor CUDA's");
  }
  if (type == nb::device::cpu::value) id = 0;
  if (device_type_ == 0) {
    first_ = name;
    device_type_ = type;
    device_id_ = id;
  }
  if (device_type_ != type || device_id_ != id) {
    refuse(name, "lies on another device than " + first_);
  }
}

prospect_row arrays::read(const char* name, nb::handle array, made_of what) {
  if (array.is_none()) return {};
  const auto& kept = keep(name, array, 1, read_);
  return row_of(name, kept, memory_of(kept.data()), what);
}

prospect_row arrays::write(const char* name, nb::handle array, made_of what) {
  if (array.is_none()) return {};
  const auto& kept = keep(name, array, 1, written_);
  return row_of(name, kept, memory_of(kept.data()), what);
}

prospect_matrix arrays::read_matrix(const char* name, nb::handle array) {
  if (array.is_none()) return {};
  const auto& kept = keep(name, array, 2, read_);
  return matrix_of(name, kept, memory_of(kept.data()));
}

prospect_matrix arrays::write_matrix(const char* name, nb::handle array) {
  if (array.is_none()) return {};
  const auto& kept = keep(name, array, 2, written_);
  return matrix_of(name, kept, memory_of(kept.data()));
}

}  // namespace prospect::python
