// DLPack tensors (PyTorch, JAX, CuPy, ...) as rows and logits. Borrows: the caller keeps the
// producer's tensor alive and runs its deleter.
#pragma once

#include <prospect/core/dtype.hpp>
#include <prospect/core/error.hpp>
#include <prospect/core/matrix_view.hpp>
#include <prospect/core/strided_span.hpp>

#include <dlpack/dlpack.h>

#include <concepts>
#include <cstdint>
#include <string>
#include <type_traits>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v1::adapters {

namespace detail {

template <class T>
constexpr DLDataType dlpack_type() {
  using E = std::remove_const_t<T>;
  constexpr auto bits = static_cast<std::uint8_t>(8 * sizeof(E));
  if constexpr (std::same_as<E, bfloat16>) {
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

template <class T>
T* checked_data(const DLTensor& tensor, int rank, DLDeviceType device) {
  const auto refuse = [](const char* why) {
    prospect::detail::refuse((std::string{"prospect: DLPack tensor: "} + why).c_str());
  };
  if (tensor.ndim != rank) refuse(rank == 1 ? "a row needs 1 dimension" : "logits need 2");
  constexpr DLDataType wanted = dlpack_type<T>();
  if (tensor.dtype.code != wanted.code || tensor.dtype.bits != wanted.bits ||
      tensor.dtype.lanes != wanted.lanes) {
    refuse("the element type is not the one asked for");
  }
  if (tensor.device.device_type != device) refuse("it lies on another device");
  return reinterpret_cast<T*>(static_cast<char*>(tensor.data) + tensor.byte_offset);
}

}  // namespace detail

/// A one-dimensional tensor of exactly this element type on this device.
/// @throws std::invalid_argument otherwise.
template <class T>
strided_span<T> row(const DLTensor& tensor, DLDeviceType device = kDLCPU) {
  T* const data = detail::checked_data<T>(tensor, 1, device);
  // No strides means compact.
  return {data, tensor.shape[0], tensor.strides == nullptr ? 1 : tensor.strides[0]};
}

/// A two-dimensional tensor [tokens, vocabulary] whose rows are contiguous.
/// @throws std::invalid_argument otherwise.
template <class T>
matrix_view<T> matrix(const DLTensor& tensor, DLDeviceType device = kDLCPU) {
  T* const data = detail::checked_data<T>(tensor, 2, device);
  if (tensor.strides == nullptr) return {data, tensor.shape[0], tensor.shape[1]};
  if (tensor.strides[1] != 1 && tensor.shape[1] > 1) {
    prospect::detail::refuse("prospect: DLPack tensor: logits rows must be contiguous");
  }
  return {data, tensor.shape[0], tensor.shape[1], tensor.strides[0]};
}

}  // namespace prospect::inline v1::adapters
PROSPECT_STRICT_END
