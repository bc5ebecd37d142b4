// The formulas on a device: primitives, their derivatives and every loss of losses.def, evaluated
// in a kernel and held against long double, or against the host for what the host tests have
// proved. Compiled twice, plainly and with --use_fast_math, where numbers below 2^-126 are 0 and
// nothing else may change.

#include <prospect/core/dtype.hpp>
#include <prospect/losses/any.hpp>

#include <cuda_runtime.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "catch.hpp"
#include "cuda/device.hpp"

namespace {

using prospect::dual;

using testing::device_array;
using testing::require_success;

template <class In, class Out, class F>
__global__ void map(const In* in, Out* out, int n, F f) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < n) out[i] = f(in[i]);
}

template <class Out, class In, class F>
std::vector<Out> on_device(const std::vector<In>& in, F f) {
  const device_array<In> d_in(in);
  const device_array<Out> d_out(in.size());
  const int n = static_cast<int>(in.size());
  map<<<(n + 127) / 128, 128>>>(d_in.data(), d_out.data(), n, f);
  require_success(cudaGetLastError());
  require_success(cudaDeviceSynchronize());
  return d_out.host();
}

#if defined(PROSPECT_FAST_MATH)
constexpr bool has_subnormals = false;
#else
constexpr bool has_subnormals = true;
#endif

// Distance in units of the last place of the exact value, down to the subnormal spacing.
double ulps(float got, long double exact) {
  if (!has_subnormals && std::abs(exact) < 0x1p-126L) exact = got == 0 ? 0 : exact;
  const float rounded = static_cast<float>(exact);
  if (std::isnan(got) || std::isinf(rounded)) return got == rounded ? 0 : 1e9;
  int exponent = 0;
  std::frexp(rounded, &exponent);
  return static_cast<double>(std::fabs(got - exact) /
                             std::ldexp(1.0L, std::max(exponent - 24, -149)));
}

// Both signs of every binade that matters, a few mantissas each.
std::vector<float> line() {
  std::vector<float> x{0.0F, -0.0F};
  for (int e = has_subnormals ? -140 : -126; e < 20; ++e) {
    for (const float m : {1.0F, 1.1F, 1.37F, 1.5F, 1.77F, 1.9999999F}) {
      x.push_back(std::ldexp(m, e));
      x.push_back(-std::ldexp(m, e));
    }
  }
  for (float v = -104.0F; v < 104.0F; v += 0.37F) x.push_back(v);
  return x;
}

struct value_and_slope {
  float value;
  float slope;
};

// Named functors: a lambda in a kernel argument would need --extended-lambda.
#define PRIMITIVE(name)                                              \
  struct device_##name {                                             \
    PROSPECT_HD value_and_slope operator()(float x) const {          \
      const auto d = prospect::name(dual<float, 1>::variable(x, 0)); \
      return {d.value, d.partial[0]};                                \
    }                                                                \
  }
PRIMITIVE(exp);
PRIMITIVE(log);
PRIMITIVE(log1p);
PRIMITIVE(sigmoid);
PRIMITIVE(softplus);
PRIMITIVE(log_sigmoid);
PRIMITIVE(expm1);
PRIMITIVE(tanh);
PRIMITIVE(sqrt);
PRIMITIVE(log1mexp);
#undef PRIMITIVE

struct base_and_exponent {
  float base;
  float exponent;
};
struct power_and_slopes {
  float value;
  float in_base;
  float in_exponent;
};
struct device_power_of_two {
  PROSPECT_HD power_and_slopes operator()(const base_and_exponent& x) const {
    using dual2 = dual<float, 2>;
    const auto d = pow(dual2::variable(x.base, 0), dual2::variable(x.exponent, 1));
    return {d.value, d.partial[0], d.partial[1]};
  }
};
struct device_abs {
  PROSPECT_HD value_and_slope operator()(float x) const {
    const auto d = prospect::abs(dual<float, 1>::variable(x, 0));
    return {d.value, d.partial[0]};
  }
};

struct device_power {
  PROSPECT_HD value_and_slope operator()(float x) const {
    const auto d = prospect::pow(dual<float, 1>::variable(x, 0), 0.375);
    return {d.value, d.partial[0]};
  }
};

// What a loss of the user's own may divide by: a variable, or a constant.
struct device_quotient {
  PROSPECT_HD value_and_slope operator()(float x) const {
    const auto d = 3.0F / dual<float, 1>::variable(x, 0);
    return {d.value, d.partial[0]};
  }
};
struct device_third {
  PROSPECT_HD value_and_slope operator()(float x) const {
    const auto d = dual<float, 1>::variable(x, 0) / 3;
    return {d.value, d.partial[0]};
  }
};

long double exact_sigmoid(long double x) {
  const long double e = std::exp(-std::fabs(x));
  return x >= 0 ? 1 / (1 + e) : e / (1 + e);
}
long double exact_softplus(long double x) {
  return std::max(x, 0.0L) + std::log1p(std::exp(-std::fabs(x)));
}

template <class F, class Value, class Slope>
void check_primitive(const std::vector<float>& x, F f, Value value, Slope slope) {
  const auto got = on_device<value_and_slope>(x, f);
  double worst_value = 0;
  double worst_slope = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    CAPTURE(x[i]);
    worst_value = std::max(worst_value, ulps(got[i].value, value(static_cast<long double>(x[i]))));
    worst_slope = std::max(worst_slope, ulps(got[i].slope, slope(static_cast<long double>(x[i]))));
  }
  CAPTURE(__PRETTY_FUNCTION__);  // which primitive
  // A device's own exponential may be 2 ulp off; an emulator's is rounded correctly.
  const double most = testing::on_silicon() ? 4 : 2;
  CHECK(worst_value <= most);
  CHECK(worst_slope <= most);
}

struct to_half {
  PROSPECT_HD std::uint16_t operator()(float v) const { return prospect::float16(v).bits; }
};
struct to_brain {
  PROSPECT_HD std::uint16_t operator()(float v) const { return prospect::bfloat16(v).bits; }
};
struct from_half {
  PROSPECT_HD float operator()(std::uint16_t v) const {
    return static_cast<float>(__builtin_bit_cast(prospect::float16, v));
  }
};

template <class L, class R>
struct differentiated {
  L loss;
  template <class Sample>
  PROSPECT_HD auto operator()(const Sample& sample) const {
    return prospect::differentiate(loss, sample);
  }
};

template <class R>
std::vector<R> interesting() {
  return {R(0), R(-0.5), R(3), R(-7.25), R(20), R(-40), R(250), R(-800), R(1e30), R(-1e30)};
}

/// `terms` is the size of what was subtracted, where that leaves less.
template <class R>
bool agree(R device, R host, double terms = 0) {
  if (std::isinf(host)) return device == host;
  const R scale = std::max({std::abs(host), static_cast<R>(terms), std::numeric_limits<R>::min()});
  return std::abs(device - host) <= 8 * std::numeric_limits<R>::epsilon() * scale;
}

template <class R, class L>
void check_loss(const L& loss) {
  CAPTURE(std::string{L::name});
  std::vector<R> u = interesting<R>();
  const double slopes = L::name == "apo_down" ? 0.25 * prospect::reward_scale(loss) : 0;
  if constexpr (prospect::paired_loss<L, R>) {
    std::vector<prospect::pair<R>> samples;
    for (const R a : u) {
      for (const R b : u) samples.push_back({{R(-30) + a, a, R(7)}, {R(-20) + b, b, R(3)}});
    }
    const auto got = on_device<prospect::paired_value<R>>(
        samples, differentiated<prospect::any_paired, R>{loss});
    for (std::size_t i = 0; i < samples.size(); ++i) {
      const auto host = prospect::differentiate(loss, samples[i]);
      CAPTURE(samples[i].chosen.ratio, samples[i].rejected.ratio, got[i].loss, host.loss,
              got[i].d_chosen, host.d_chosen);
      CHECK(agree(got[i].loss, host.loss));
      CHECK(agree(got[i].d_chosen, host.d_chosen, slopes));
      CHECK(agree(got[i].d_rejected, host.d_rejected));
    }
  } else if constexpr (prospect::token_loss<L, R>) {
    std::vector<prospect::token<R>> samples;
    for (const R a : u) {
      for (const R advantage : {R(-1.5), R(0), R(2)}) {
        samples.push_back({R(-30) + a, a, -a, advantage, R(3) * a, R(3)});
      }
    }
    const auto got =
        on_device<prospect::token_value<R>>(samples, differentiated<prospect::any_token, R>{loss});
    for (std::size_t i = 0; i < samples.size(); ++i) {
      const auto host = prospect::differentiate(loss, samples[i]);
      CAPTURE(samples[i].ratio, samples[i].advantage, got[i].loss, host.loss, got[i].d_policy,
              host.d_policy, got[i].d_sum, host.d_sum);
      CHECK(agree(got[i].loss, host.loss));
      CHECK(agree(got[i].d_policy, host.d_policy));
      if constexpr (prospect::sums_tokens<L>) CHECK(agree(got[i].d_sum, host.d_sum));
    }
  } else {
    std::vector<prospect::unpaired<R>> samples;
    for (const R a : u) {
      for (const R z : {R(0), R(1.5), R(30)}) {
        samples.push_back({{R(-30) + a, a, R(7)}, z, true});
        samples.push_back({{R(-30) + a, a, R(7)}, z, false});
      }
    }
    const auto got = on_device<prospect::unpaired_value<R>>(
        samples, differentiated<prospect::any_unpaired, R>{loss});
    for (std::size_t i = 0; i < samples.size(); ++i) {
      const auto host = prospect::differentiate(loss, samples[i]);
      CAPTURE(samples[i].answer.ratio, samples[i].z, samples[i].desirable, got[i].loss, host.loss,
              got[i].d_policy, host.d_policy);
      CHECK(agree(got[i].loss, host.loss));
      CHECK(agree(got[i].d_policy, host.d_policy));
      CHECK(agree(got[i].d_z, host.d_z));
    }
  }
}

}  // namespace

TEST_CASE("primitives and their derivatives are within the losses' 4 ulp on the device") {
  const std::vector<float> x = line();
  check_primitive(x, device_sigmoid{}, exact_sigmoid,
                  [](long double v) { return exact_sigmoid(v) * exact_sigmoid(-v); });
  check_primitive(x, device_softplus{}, exact_softplus, exact_sigmoid);
  check_primitive(
      x, device_log_sigmoid{}, [](long double v) { return -exact_softplus(-v); },
      [](long double v) { return exact_sigmoid(-v); });
  check_primitive(
      x, device_expm1{}, [](long double v) { return std::expm1(v); },
      [](long double v) { return std::exp(v); });

  check_primitive(
      x, device_exp{}, [](long double v) { return std::exp(v); },
      [](long double v) { return std::exp(v); });
  check_primitive(
      x, device_tanh{}, [](long double v) { return std::tanh(v); },
      [](long double v) {
        const long double e = std::exp(-2 * std::fabs(v));
        return 4 * e / ((1 + e) * (1 + e));
      });
  check_primitive(
      x, device_third{}, [](long double v) { return v / 3; }, [](long double) { return 1.0L / 3; });

  std::vector<float> negative, positive;
  for (const float v : x) {
    if (v < 0) negative.push_back(v);
    if (v > 0) positive.push_back(v);
  }
  check_primitive(
      positive, device_log{}, [](long double v) { return std::log(v); },
      [](long double v) { return 1 / v; });
  check_primitive(
      positive, device_log1p{}, [](long double v) { return std::log1p(v); },
      [](long double v) { return 1 / (1 + v); });
  check_primitive(
      positive, device_sqrt{}, [](long double v) { return std::sqrt(v); },
      [](long double v) { return 0.5L / std::sqrt(v); });
  check_primitive(
      positive, device_power{}, [](long double v) { return std::pow(v, 0.375L); },
      [](long double v) { return 0.375L * std::pow(v, -0.625L); });
  check_primitive(
      positive, device_quotient{}, [](long double v) { return 3 / v; },
      [](long double v) { return -3 / (v * v); });
  check_primitive(
      negative, device_log1mexp{},
      [](long double v) {
        return v < -0.693L ? std::log1p(-std::exp(v)) : std::log(-std::expm1(v));
      },
      [](long double v) { return std::exp(v) / std::expm1(v); });
}

TEST_CASE("a power of two variables is the host's on the device, edges and NaN included") {
  const float infinity = std::numeric_limits<float>::infinity();
  std::vector<base_and_exponent> pairs;
  for (const float a : {0.0F, 1.0F, 2.0F, 0.5F, 3.0F, 1.0001F, 1e-30F, 7e37F, infinity}) {
    for (const float b : {0.0F, 1.0F, 2.0F, 0.5F, 3.0F, 17.25F, 16777216.0F, infinity, NAN}) {
      for (const float x : {a, -a}) {
        for (const float p : {b, -b}) {
          pairs.push_back({x, p});
          pairs.push_back({p, x});
        }
      }
    }
  }
  const auto got = on_device<power_and_slopes>(pairs, device_power_of_two{});
  const auto close = [](float a, float b) {
    if (std::isnan(b)) return std::isnan(a);
    return a == b || (std::signbit(a) == std::signbit(b) && ulps(a, b) <= 1);
  };
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    const power_and_slopes host = device_power_of_two{}(pairs[i]);
    CAPTURE(pairs[i].base, pairs[i].exponent, got[i].value, host.value, got[i].in_base,
            host.in_base, got[i].in_exponent, host.in_exponent);
    CHECK(close(got[i].value, host.value));
    CHECK(close(got[i].in_base, host.in_base));
    CHECK(close(got[i].in_exponent, host.in_exponent));
  }
}

TEST_CASE("a magnitude and its slope on the device") {
  for (const float x : {2.5F, -2.5F, 0.0F, -0.0F}) {
    const auto got = on_device<value_and_slope>(std::vector<float>{x}, device_abs{})[0];
    CAPTURE(x);
    CHECK(got.value == std::abs(x));
    CHECK_FALSE(std::signbit(got.value));
    CHECK(got.slope == (x > 0 ? 1.0F : x < 0 ? -1.0F : 0.0F));
  }
  CHECK(std::isnan(on_device<value_and_slope>(std::vector<float>{NAN}, device_abs{})[0].value));
}

// In one kernel for all, as the archive has it.
TEMPLATE_TEST_CASE("every loss is the same function on the device", "", float, double) {
  prospect::for_each_loss([](const auto& loss) { check_loss<TestType>(loss); });
}

TEST_CASE("16-bit storage converts on the device as on the host") {
  std::vector<float> x = line();
  x.push_back(65504.0F);
  x.push_back(65520.0F);
  x.push_back(std::numeric_limits<float>::infinity());
  const auto half = on_device<std::uint16_t>(x, to_half{});
  const auto brain = on_device<std::uint16_t>(x, to_brain{});
  const auto back = on_device<float>(half, from_half{});
  for (std::size_t i = 0; i < x.size(); ++i) {
    CAPTURE(x[i]);
    CHECK(half[i] == prospect::float16(x[i]).bits);
    CHECK(brain[i] == prospect::bfloat16(x[i]).bits);
    CHECK(back[i] == static_cast<float>(prospect::float16(x[i])));
  }
}
