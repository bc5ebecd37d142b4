// libtorch tensors as rows, logits and indices, of a stated element type on a stated device; and
// at::parallel_for as an executor. Borrows: the tensor must outlive the view.
//
// A tensor that is not defined is a row that is not given. Nothing is copied here, and nothing
// converted: what does not fit is refused with the name it goes by.
#pragma once

#include <prospect/any_row.hpp>
#include <prospect/core/error.hpp>
#include <prospect/core/extent.hpp>
#include <prospect/core/index_row.hpp>
#include <prospect/core/isa.hpp>
#include <prospect/core/mask_row.hpp>
#include <prospect/core/matrix_view.hpp>
#include <prospect/executor.hpp>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <concepts>
#include <cstdint>
#include <string>
#include <string_view>
#include <type_traits>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::adapters {

/// Threads are torch's: as many as at::get_num_threads() says, and one inside a region of its own.
/// They are OpenMP's as a rule, so that a unit compiled without -fopenmp has the calling thread
/// alone (with it, define EIGEN_DONT_PARALLELIZE, because the head path's threads are these).
struct torch_executor {
  PROSPECT_INLINE static void run(std::int64_t n, task t) {
    at::parallel_for(0, n, 1, [t](std::int64_t first, std::int64_t last) {
      for (std::int64_t i = first; i < last; ++i) t(i);
    });
  }
};
static_assert(executor<const torch_executor>);

namespace detail {

/// What has a tensor type of its own.
template <class T>
concept torch_element =
    storage<std::remove_const_t<T>> || std::same_as<std::remove_const_t<T>, std::int32_t> ||
    std::same_as<std::remove_const_t<T>, std::int64_t> ||
    std::same_as<std::remove_const_t<T>, std::uint8_t> ||
    std::same_as<std::remove_const_t<T>, bool>;

inline namespace PROSPECT_CPU_ISA {

[[noreturn]] inline void refuse_tensor(std::string_view name, std::string_view why) {
  prospect::detail::refuse(std::string{"prospect: "}.append(name).append(" ").append(why).c_str());
}

template <torch_element T>
constexpr at::ScalarType torch_type() {
  using E = std::remove_const_t<T>;
  if constexpr (std::same_as<E, float>) return at::kFloat;
  if constexpr (std::same_as<E, double>) return at::kDouble;
  if constexpr (std::same_as<E, float16>) return at::kHalf;
  if constexpr (std::same_as<E, bfloat16>) return at::kBFloat16;
  if constexpr (std::same_as<E, std::int32_t>) return at::kInt;
  if constexpr (std::same_as<E, std::int64_t>) return at::kLong;
  if constexpr (std::same_as<E, std::uint8_t>) return at::kByte;
  return at::kBool;
}

/// That a view of it would make sense there: strided memory with so many dimensions.
inline void check_place(const at::Tensor& tensor, std::string_view name, std::int64_t dimensions,
                        const at::Device& device) {
  if (!tensor.defined()) refuse_tensor(name, "is not defined");
  if (tensor.layout() != at::kStrided) refuse_tensor(name, "is not a strided tensor");
  if (tensor.device() != device) {
    refuse_tensor(name, "is on " + tensor.device().str() + ", " + device.str() + " is needed");
  }
  if (tensor.dim() != dimensions) {
    refuse_tensor(name, "has " + std::to_string(tensor.dim()) + " dimensions, " +
                            std::to_string(dimensions) + " are needed");
  }
  if (tensor.is_neg() || tensor.is_conj()) {
    refuse_tensor(name, "is a lazy negative or conjugate: resolve_neg() it");
  }
}

/// A byte of a bool is 0 or 1 and may be read as one.
template <class T>
bool holds(const at::Tensor& tensor) {
  return tensor.scalar_type() == torch_type<T>() ||
         (std::same_as<T, const std::uint8_t> && tensor.scalar_type() == at::kBool);
}
template <class T>
T* checked_data(const at::Tensor& tensor, std::string_view name) {
  if (!holds<T>(tensor)) {
    refuse_tensor(name, std::string{"is of type "}
                            .append(at::toString(tensor.scalar_type()))
                            .append(", ")
                            .append(at::toString(torch_type<T>()))
                            .append(" is needed"));
  }
  return static_cast<T*>(tensor.data_ptr());
}

inline dtype storage_dtype(const at::Tensor& tensor, std::string_view name) {
  switch (tensor.scalar_type()) {
    case at::kFloat:
      return dtype::f32;
    case at::kDouble:
      return dtype::f64;
    case at::kHalf:
      return dtype::f16;
    case at::kBFloat16:
      return dtype::bf16;
    default:
      refuse_tensor(name, std::string{"is of type "}
                              .append(at::toString(tensor.scalar_type()))
                              .append(", Float, Double, Half or BFloat16 is needed"));
  }
}

/// One element has no stride.
inline std::int64_t stride_of(const at::Tensor& row) { return row.size(0) > 1 ? row.stride(0) : 1; }

}  // namespace PROSPECT_CPU_ISA
}  // namespace detail

inline namespace PROSPECT_CPU_ISA {

/// Calls f(std::type_identity<S>) with the storage type S of the tensor.
/// @throws std::invalid_argument for any other element type.
template <class F>
decltype(auto) with_storage(const at::Tensor& tensor, std::string_view name, const F& f) {
  switch (detail::storage_dtype(tensor, name)) {
    case dtype::f64:
      return f(std::type_identity<double>{});
    case dtype::f16:
      return f(std::type_identity<float16>{});
    case dtype::bf16:
      return f(std::type_identity<bfloat16>{});
    default:
      return f(std::type_identity<float>{});
  }
}

/// A tensor of one dimension and of exactly this element type, with any stride. Bools may also be
/// read as bytes (const std::uint8_t).
/// @param name what a refusal calls it.
/// @throws std::invalid_argument otherwise, or if it lies on another device.
template <detail::torch_element T>
strided_span<T> row(const at::Tensor& tensor, std::string_view name = "tensor",
                    const at::Device& device = at::kCPU) {
  detail::check_place(tensor, name, 1, device);
  return {detail::checked_data<T>(tensor, name), tensor.size(0), detail::stride_of(tensor)};
}

/// The same of any storage type, to be read; an undefined tensor is a row that is not given.
inline const_any_row any_input(const at::Tensor& tensor, std::string_view name = "tensor",
                               const at::Device& device = at::kCPU) {
  if (!tensor.defined()) return {};
  detail::check_place(tensor, name, 1, device);
  return {tensor.data_ptr(), detail::storage_dtype(tensor, name), tensor.size(0),
          detail::stride_of(tensor)};
}
/// And to be written.
inline any_row any_output(const at::Tensor& tensor, std::string_view name = "tensor",
                          const at::Device& device = at::kCPU) {
  if (!tensor.defined()) return {};
  detail::check_place(tensor, name, 1, device);
  return {tensor.data_ptr(), detail::storage_dtype(tensor, name), tensor.size(0),
          detail::stride_of(tensor)};
}

/// A row of int32 or int64; an undefined tensor is a row that is not given.
inline index_row indices(const at::Tensor& tensor, std::string_view name = "tensor",
                         const at::Device& device = at::kCPU) {
  if (!tensor.defined()) return {};
  if (tensor.scalar_type() == at::kInt) return row<const std::int32_t>(tensor, name, device);
  if (tensor.scalar_type() == at::kLong) return row<const std::int64_t>(tensor, name, device);
  detail::refuse_tensor(name, std::string{"is of type "}
                                  .append(at::toString(tensor.scalar_type()))
                                  .append(", Int or Long is needed"));
}

/// A mask of bools, bytes, ints or floats; an undefined tensor is none.
inline mask_row mask(const at::Tensor& tensor, std::string_view name = "mask",
                     const at::Device& device = at::kCPU) {
  if (!tensor.defined()) return {};
  if (tensor.scalar_type() == at::kInt) return row<const std::int32_t>(tensor, name, device);
  if (tensor.scalar_type() == at::kFloat) return row<const float>(tensor, name, device);
  return row<const std::uint8_t>(tensor, name, device);
}

/// A tensor [rows, columns] of exactly this element type, whose rows are contiguous; the stride
/// from row to row becomes the pitch.
/// @throws std::invalid_argument otherwise, or if it lies on another device.
template <detail::torch_element T>
matrix_view<T> matrix(const at::Tensor& tensor, std::string_view name = "tensor",
                      const at::Device& device = at::kCPU) {
  detail::check_place(tensor, name, 2, device);
  T* const data = detail::checked_data<T>(tensor, name);
  const std::int64_t rows = tensor.size(0);
  const std::int64_t columns = tensor.size(1);
  if (rows > 0 && columns > 1 && tensor.stride(1) != 1) {
    detail::refuse_tensor(name, "has rows that are not contiguous");
  }
  // A single row has no pitch.
  const matrix_view<T> view{data, rows, columns,
                            rows > 1 && columns > 0 ? tensor.stride(0) : columns};
  if (const char* problem = prospect::detail::view_problem(view)) {
    detail::refuse_tensor(name, problem);
  }
  return view;
}

}  // namespace PROSPECT_CPU_ISA
}  // namespace prospect::inline v2::adapters
PROSPECT_STRICT_END
