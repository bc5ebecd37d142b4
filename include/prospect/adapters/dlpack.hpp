// DLPack tensors (PyTorch, JAX, CuPy, ...) as rows and logits, of DLPack 0.6 and of 1.x with its
// versioned tensors. Borrows: the caller keeps the producer's tensor alive and runs its deleter.
#pragma once

#include <prospect/core/dtype.hpp>
#include <prospect/core/error.hpp>
#include <prospect/core/extent.hpp>
#include <prospect/core/matrix_view.hpp>
#include <prospect/core/strided_span.hpp>

#include <dlpack/dlpack.h>

#include <concepts>
#include <cstdint>
#include <string>
#include <type_traits>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::adapters {

namespace detail {

// DLPack 0.6 has no name for it.
inline constexpr std::uint8_t dlpack_bool = 6;

template <class T>
constexpr DLDataType dlpack_type() {
  using E = std::remove_const_t<T>;
  constexpr auto bits = static_cast<std::uint8_t>(8 * sizeof(E));
  if constexpr (std::same_as<E, bool>) {
    return {dlpack_bool, bits, 1};
  } else if constexpr (std::same_as<E, bfloat16>) {
    return {kDLBfloat, bits, 1};
  } else if constexpr (storage<E>) {
    return {kDLFloat, bits, 1};
  } else if constexpr (std::unsigned_integral<E>) {
    return {kDLUInt, bits, 1};
  } else {
    static_assert(std::signed_integral<E>, "prospect: no DLPack type for this element");
    return {kDLInt, bits, 1};
  }
}

PROSPECT_INLINE void refuse_tensor(const char* problem) {
  if (problem == nullptr) return;
  prospect::detail::refuse((std::string{"prospect: DLPack tensor "} + problem).c_str());
}

/// A byte of a bool is 0 or 1 and may be read as one; any other byte is no bool.
template <class T>
PROSPECT_INLINE bool holds(const DLDataType& type) {
  constexpr DLDataType wanted = dlpack_type<T>();
  return type.bits == wanted.bits && type.lanes == wanted.lanes &&
         (type.code == wanted.code ||
          (std::same_as<T, const std::uint8_t> && type.code == dlpack_bool));
}

/// Pinned memory of the host is memory of the host, which has no number.
PROSPECT_INLINE bool lies_on(const DLDevice& where, const DLDevice& wanted) {
  if (wanted.device_type == kDLCPU) {
    return where.device_type == kDLCPU || where.device_type == kDLCUDAHost ||
           where.device_type == kDLROCMHost;
  }
  return where.device_type == wanted.device_type && where.device_id == wanted.device_id;
}

template <class T>
PROSPECT_INLINE T* checked_data(const DLTensor& tensor, int rank, const DLDevice& device) {
  if (tensor.ndim != rank) {
    refuse_tensor(rank == 1 ? "is no row: a row has 1 dimension" : "is no matrix: logits have 2");
  }
  if (tensor.shape == nullptr) refuse_tensor("has no shape");
  if (!holds<T>(tensor.dtype)) refuse_tensor("is of another element type than the one asked for");
  if (!lies_on(tensor.device, device))
    refuse_tensor("lies on another device than the one asked for");
  if (tensor.byte_offset > static_cast<std::uint64_t>(prospect::detail::most_bytes)) {
    refuse_tensor("has a byte_offset larger than any memory");
  }
  if (tensor.data == nullptr) return nullptr;
  return reinterpret_cast<T*>(static_cast<char*>(tensor.data) + tensor.byte_offset);
}

#if defined(DLPACK_MAJOR_VERSION) && DLPACK_MAJOR_VERSION >= 1
template <class T>
PROSPECT_INLINE const DLTensor& checked_version(const DLManagedTensorVersioned& tensor) {
  // All that another version is sure to have is a deleter.
  if (tensor.version.major != DLPACK_MAJOR_VERSION) {
    refuse_tensor("is of another major version than the header dlpack.h");
  }
  if (!std::is_const_v<T> && (tensor.flags & DLPACK_FLAG_BITMASK_READ_ONLY) != 0) {
    refuse_tensor("is read-only, and this view of it may be written to");
  }
  return tensor.dl_tensor;
}
#endif

}  // namespace detail

/// A one-dimensional tensor of exactly this element type on this device: bfloat16 for bfloat16,
/// bool for bool. Bools may also be read as bytes (const std::uint8_t).
/// @throws std::invalid_argument otherwise, and for what describes no memory: null or misaligned
///         data, negative or impossible sizes.
template <class T>
PROSPECT_INLINE strided_span<T> row(const DLTensor& tensor, DLDevice device = {kDLCPU, 0}) {
  T* const data = detail::checked_data<T>(tensor, 1, device);
  const std::int64_t size = tensor.shape[0];
  // No strides means compact; one element has none.
  const bool strided = tensor.strides != nullptr && size > 1;
  const strided_span<T> view{data, size, strided ? tensor.strides[0] : 1};
  detail::refuse_tensor(prospect::detail::view_problem(view));
  return view;
}

/// A two-dimensional tensor [tokens, vocabulary] whose rows are contiguous, as `row` takes one.
/// @throws std::invalid_argument otherwise.
template <class T>
PROSPECT_INLINE matrix_view<T> matrix(const DLTensor& tensor, DLDevice device = {kDLCPU, 0}) {
  T* const data = detail::checked_data<T>(tensor, 2, device);
  const std::int64_t rows = tensor.shape[0];
  const std::int64_t columns = tensor.shape[1];
  if (tensor.strides != nullptr && tensor.strides[1] != 1 && rows > 0 && columns > 1) {
    detail::refuse_tensor("has rows that are not contiguous");
  }
  // A single row has no pitch, and whatever its producer wrote there means nothing.
  const bool pitched = tensor.strides != nullptr && rows > 1 && columns > 0;
  const matrix_view<T> view{data, rows, columns, pitched ? tensor.strides[0] : columns};
  detail::refuse_tensor(prospect::detail::view_problem(view));
  return view;
}

#if defined(DLPACK_MAJOR_VERSION) && DLPACK_MAJOR_VERSION >= 1
/// The tensor of a producer that says which version of DLPack it speaks. One that is read-only can
/// only be read: `row<const float>`.
/// @throws std::invalid_argument otherwise.
template <class T>
PROSPECT_INLINE strided_span<T> row(const DLManagedTensorVersioned& tensor,
                                    DLDevice device = {kDLCPU, 0}) {
  return row<T>(detail::checked_version<T>(tensor), device);
}
template <class T>
PROSPECT_INLINE matrix_view<T> matrix(const DLManagedTensorVersioned& tensor,
                                      DLDevice device = {kDLCPU, 0}) {
  return matrix<T>(detail::checked_version<T>(tensor), device);
}
#endif

}  // namespace prospect::inline v2::adapters
PROSPECT_STRICT_END
