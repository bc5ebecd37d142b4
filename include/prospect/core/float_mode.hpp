// The floating-point mode of a thread: rounding to nearest, subnormal numbers kept, exceptions
// masked, as C++ assumes. A host may have left another one in its threads (-ffast-math sets flush
// to zero in whoever links with it); no number of ours depends on that.
#pragma once

#include <prospect/config.hpp>

#include <cstdint>
#include <type_traits>

#if defined(__x86_64__) || defined(__SSE__)
#include <xmmintrin.h>
#endif

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::detail {

/// In its scope the calling thread runs in the default mode; afterwards in the one it was in.
class default_float_mode {
 public:
  PROSPECT_INLINE default_float_mode() noexcept : found_{get()} {
    if (differs()) set((found_ & ~control) | standard);
  }
  PROSPECT_INLINE ~default_float_mode() {
    if (differs()) set(found_);
  }
  default_float_mode(const default_float_mode&) = delete;
  default_float_mode& operator=(const default_float_mode&) = delete;

 private:
#if defined(__x86_64__) || defined(__SSE__)
  using bits = std::uint32_t;
  static constexpr bits control = 0xffc0;   // all but the flags of what has happened
  static constexpr bits standard = 0x1f80;  // every exception masked
  PROSPECT_INLINE static bits get() noexcept { return _mm_getcsr(); }
  PROSPECT_INLINE static void set(bits mode) noexcept {
    // Nothing that touches memory moves over either, and no result is there before it was loaded.
    __asm__ __volatile__("" ::: "memory");
    _mm_setcsr(mode);
    __asm__ __volatile__("" ::: "memory");
  }
#elif defined(__aarch64__)
  using bits = std::uint64_t;
  static constexpr bits control = 0x07ff9f00;  // AHP, DN, FZ, rounding, FZ16, traps
  static constexpr bits standard = 0;
  PROSPECT_INLINE static bits get() noexcept {
    bits mode;
    __asm__ __volatile__("mrs %0, fpcr" : "=r"(mode));
    return mode;
  }
  PROSPECT_INLINE static void set(bits mode) noexcept {
    __asm__ __volatile__("msr fpcr, %0" ::"r"(mode) : "memory");
  }
#else
  using bits = std::uint32_t;  // a processor whose modes we do not know is taken as it is
  static constexpr bits control = 0, standard = 0;
  PROSPECT_INLINE static bits get() noexcept { return 0; }
  PROSPECT_INLINE static void set(bits) noexcept {}
#endif
  PROSPECT_INLINE bool differs() const noexcept { return (found_ & control) != standard; }

  bits found_;
};

/// x is known by now. No compiler sees that arithmetic depends on the mode: what leaves the scope
/// of a `default_float_mode` in a register may be computed after its end, unless it is settled
/// before.
template <class T>
PROSPECT_INLINE void settle(T& x) noexcept {
#if defined(__GNUC__)
  __asm__ __volatile__("" : "+m"(x));
#endif
}

/// f(x...) in the default mode.
template <class F, class... Numbers>
PROSPECT_INLINE auto with_default_mode(const F& f, Numbers... x) noexcept {
  const default_float_mode mode;
  (settle(x), ...);
  auto result = f(x...);
  settle(result);
  return result;
}
template <class F, class... Numbers>
PROSPECT_HD constexpr auto in_default_mode(const F& f, Numbers... x) noexcept {
#if !defined(__CUDA_ARCH__)
  if (!std::is_constant_evaluated()) return with_default_mode(f, x...);
#endif
  return f(x...);
}

struct plus {
  PROSPECT_HD constexpr double operator()(double a, double b) const noexcept { return a + b; }
};
struct quotient {
  PROSPECT_HD constexpr double operator()(double a, double b) const noexcept { return a / b; }
};

}  // namespace prospect::inline v2::detail
PROSPECT_STRICT_END
