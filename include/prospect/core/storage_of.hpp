// Other people's types that are, bit for bit, a storage type of ours: rows and matrices of them are
// taken as they lie. Known by themselves are CUDA's __half and __nv_bfloat16 and what the compiler
// has (_Float16 and std::float16_t, __bf16 and std::bfloat16_t).
#pragma once

#include <prospect/core/dtype.hpp>

#include <concepts>
#include <type_traits>

// Where the headers are that define them.
#if defined(__has_include)
#if __has_include(<cuda_fp16.h>) && __has_include(<cuda_bf16.h>)
#define PROSPECT_KNOWS_CUDA_TYPES 1
struct __half;         // NOLINT(bugprone-reserved-identifier)
struct __nv_bfloat16;  // NOLINT(bugprone-reserved-identifier)
#endif
#endif

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2 {

/// The storage type that a T is, bit for bit. A host says so of a 16-bit type of its own:
///
/// ```cpp
/// struct half { std::uint16_t bits; };
/// template <>
/// struct prospect::storage_of<half> { using type = prospect::float16; };
/// ```
template <class T>
struct storage_of {};
template <storage S>
struct storage_of<S> {
  using type = S;
};
#if defined(PROSPECT_KNOWS_CUDA_TYPES)
template <>
struct storage_of<__half> {
  using type = float16;
};
template <>
struct storage_of<__nv_bfloat16> {
  using type = bfloat16;
};
#endif
// The standard's names are these same types.
#if defined(__STDCPP_FLOAT16_T__) ||                                          \
    (defined(__FLT16_MANT_DIG__) && (defined(__clang__) || __GNUC__ >= 13) && \
     !defined(__CUDACC__))
template <>
struct storage_of<_Float16> {
  using type = float16;
};
#endif
#if defined(__STDCPP_BFLOAT16_T__) || \
    (defined(__BFLT16_MANT_DIG__) && !defined(__clang__) && !defined(__CUDACC__))
template <>
struct storage_of<__bf16> {
  using type = bfloat16;
};
#endif
template <class T>
using storage_of_t = typename storage_of<std::remove_const_t<T>>::type;

namespace detail {

/// Numbers of ours, or of somebody else with the same bits.
template <class T>
concept stored = requires { typename storage_of_t<T>; };

/// Whether somebody else's From, const or not, is what To names. Only the name changes: bits are
/// read and written through types that may alias others.
template <class From, class To>
concept stored_as_type = stored<From> && !storage<std::remove_const_t<From>> &&
                         std::same_as<storage_of_t<From>, std::remove_const_t<To>> &&
                         (std::is_const_v<To> || !std::is_const_v<From>);

template <class To, class From>
PROSPECT_HD inline To* as_storage(From* data) noexcept {
  static_assert(sizeof(From) == sizeof(To), "prospect: storage_of names a type of another size");
  return reinterpret_cast<To*>(data);
}

}  // namespace detail

}  // namespace prospect::inline v2
PROSPECT_STRICT_END
