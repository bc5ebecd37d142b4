// Holds what host.cpp computes, under whatever flags, against long double. Compiled without those
// flags, and without a header of the library.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <string_view>
#include <vector>

#include "closeness.hpp"
#include "host.hpp"
#include "oracle/scalar.hpp"
#include "oracle/softmax.hpp"
#include "random.hpp"

namespace {

using oracle::real;
using testing::ulps;

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr float nan = std::numeric_limits<float>::quiet_NaN();

int failures = 0;
void check(bool right, const char* what, const char* which, double got, double at) {
  if (right) return;
  if (++failures > 40) return;  // the first of them say enough
  std::printf("%s: %s: %g at %.9g\n", which, what, got, at);
}

struct textbook {
  const char* name;
  real (*value)(real);
  real (*slope)(real);
};
// In the order of host::formula.
constexpr real tenth = 0.1;
const textbook textbooks[] = {
    {"exp", [](real x) { return std::exp(x); }, [](real x) { return std::exp(x); }},
    {"expm1", [](real x) { return std::expm1(x); }, [](real x) { return std::exp(x); }},
    {"log", [](real x) { return std::log(x); }, [](real x) { return 1 / x; }},
    {"log1p", [](real x) { return std::log1p(x); }, [](real x) { return 1 / (1 + x); }},
    {"sigmoid", oracle::sigmoid, oracle::sigmoid_slope},
    {"softplus", oracle::softplus, oracle::sigmoid},
    {"log_sigmoid", oracle::log_sigmoid, [](real x) { return oracle::sigmoid(-x); }},
    {"log1mexp", oracle::log1mexp,
     [](real x) { return x == 0 ? -HUGE_VALL : -1 / std::expm1(-x); }},
    {"tanh", [](real x) { return std::tanh(x); },
     [](real x) { return 1 / oracle::square(std::cosh(x)); }},
    {"sqrt", [](real x) { return std::sqrt(x); },
     [](real x) { return x == 0 ? HUGE_VALL : 0.5L / std::sqrt(x); }},
    {"abs", [](real x) { return std::abs(x); }, [](real x) { return real(x > 0) - real(x < 0); }},
    {"relu", [](real x) { return x < 0 ? 0 : x; }, [](real x) { return real(x > 0); }},
    {"square", oracle::square, [](real x) { return 2 * x; }},
    {"clamp", [](real x) { return x < -1     ? -1
                                  : x > 1.5L ? 1.5L
                                             : x; },
     [](real x) { return x < -1 || x > 1.5L ? real(0) : 1; }},
    {"pow(x, 0.1)", [](real x) { return std::pow(x, tenth); },
     [](real x) { return tenth * std::pow(x, tenth - 1); }},
    {"pow(x, 3)", [](real x) { return x * x * x; }, [](real x) { return 3 * x * x; }},
    {"pow(2, x)", [](real x) { return std::exp2(x); },
     [](real x) { return std::exp2(x) * std::log(real(2)); }},
    {"pow(x, x)", [](real x) { return std::pow(x, x); },
     [](real x) { return x == 0 ? 0 : std::pow(x, x) * (std::log(x) + 1); }},
    {"1 / x", [](real x) { return 1 / x; }, [](real x) { return -1 / (x * x); }},
};

/// Both signs of every binade that is told from 0 in any mode, edges, and where formulas turn.
std::vector<float> line() {
  std::vector<float> x{0.0F, 1.0F, -1.0F, 1.5F, infinity, -infinity, nan};
  testing::random_source random{17};
  for (int e = -60; e < 60; ++e) {
    for (int k = 0; k < 4; ++k) {
      const auto m = static_cast<float>(std::ldexp(random.uniform(1, 2), e));
      x.push_back(m);
      x.push_back(-m);
    }
  }
  for (int k = 0; k < 800; ++k) x.push_back(static_cast<float>(random.uniform(-80, 80)));
  for (int k = 0; k < 800; ++k) x.push_back(static_cast<float>(random.uniform(-3, 3)));
  return x;
}

/// Of a slope that a formula adds up from two, the larger part.
real terms_of(int which, real x) {
  return which == host::pow_both ? std::pow(x, x) * (std::abs(std::log(x)) + 1) : 0;
}

template <class R>
void hold(int which, const char* how, const std::vector<R>& x, const std::vector<R>& value,
          const std::vector<R>* slope) {
  // 2 ulp, and those of the host's own arithmetic, which its flags let it do in its own way.
  constexpr double most = 4;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const real want = textbooks[which].value(x[i]);
    const double error = ulps(value[i], want);
    check(error <= most, how, textbooks[which].name, error, static_cast<double>(x[i]));
    if (slope == nullptr || !std::isfinite(want) || !std::isfinite(x[i])) continue;
    const double slope_error =
        ulps((*slope)[i], textbooks[which].slope(x[i]), terms_of(which, x[i]));
    check(slope_error <= most, "slope", textbooks[which].name, slope_error,
          static_cast<double>(x[i]));
  }
}

template <class R>
void count_nonfinite(const char* name, host::results got, const std::vector<R>& x,
                     const std::vector<R>& value, const std::vector<R>& slope) {
  double n = 0;
  double first = -1;
  for (std::size_t i = 0; i < x.size(); ++i) {
    if (std::isfinite(x[i]) && std::isfinite(value[i]) && std::isfinite(slope[i])) continue;
    if (n == 0) first = static_cast<double>(i);
    ++n;
  }
  check(got.nonfinite == n, "nonfinite counted", name, got.nonfinite, n);
  check(static_cast<double>(got.first_nonfinite) == first, "first nonfinite", name,
        static_cast<double>(got.first_nonfinite), first);
}

void formulas() {
  const std::vector<float> x = line();
  const auto n = static_cast<int>(x.size());
  std::vector<float> value(x.size()), slope(x.size());
  const std::vector<double> xd(x.begin(), x.end());
  std::vector<double> value_d(x.size()), slope_d(x.size());
  for (int which = 0; which < host::formulas; ++which) {
    if (which != host::quotient) {  // a host's own line of arithmetic is a host's own
      host::by_itself(which, x.data(), n, value.data());
      hold<float>(which, "by itself", x, value, nullptr);
    }
    for (const bool branch_free : {false, true}) {
      const auto got = host::as_loss(which, branch_free, x.data(), n, value.data(), slope.data());
      hold(which, branch_free ? "several at once" : "one by one", x, value, &slope);
      count_nonfinite(textbooks[which].name, got, x, value, slope);
    }
    const auto got = host::as_loss(which, xd.data(), n, value_d.data(), slope_d.data());
    count_nonfinite(textbooks[which].name, got, xd, value_d, slope_d);
    hold(which, "fp64", xd, value_d, &slope_d);
  }
}

void losses() {
  testing::random_source random{23};
  const int n = 1000;
  std::vector<float> chosen, rejected, loss(n), d(n);
  for (int i = 0; i < n; ++i) {
    chosen.push_back(static_cast<float>(random.normal(300)));
    rejected.push_back(static_cast<float>(random.normal(300)));
  }
  const real beta = 0.1F;  // as fp32 has it
  const auto hold_loss = [&](const char* name, auto&& value, auto&& slope, auto&& terms) {
    for (std::size_t i = 0; i < chosen.size(); ++i) {
      const double value_error = ulps(loss[i], value(i), terms(i));
      check(value_error <= 8, "loss", name, value_error, static_cast<double>(i));
      const double slope_error = ulps(d[i], slope(i), terms(i) == 0 ? 0 : slope(i) + 1);
      check(slope_error <= 8, "coefficient", name, slope_error, static_cast<double>(i));
    }
  };
  // Differences of inputs are those of fp32.
  const auto margin = [&](std::size_t i) { return real{beta} * real{chosen[i] - rejected[i]}; };
  auto got = host::dpo(chosen.data(), rejected.data(), n, loss.data(), d.data());
  check(got.nonfinite == 0, "nonfinite", "dpo", got.nonfinite, 0);
  for (std::size_t i = 0; i < chosen.size(); ++i) {
    // An error of the exponent is one of the result.
    const double room = 4 + std::abs(static_cast<double>(margin(i)));
    check(ulps(loss[i], oracle::softplus(-margin(i))) <= room, "loss", "dpo", loss[i],
          static_cast<double>(i));
    check(ulps(d[i], -beta * oracle::sigmoid(-margin(i))) <= room, "coefficient", "dpo", d[i],
          static_cast<double>(i));
  }
  got = host::ipo(chosen.data(), rejected.data(), n, loss.data(), d.data());
  check(got.nonfinite == 0, "nonfinite", "ipo", got.nonfinite, 0);
  hold_loss(
      "ipo", [&](std::size_t i) { return oracle::square(real{chosen[i] - rejected[i]} - 5); },
      [&](std::size_t i) { return 2 * (real{chosen[i] - rejected[i]} - 5); },
      [](std::size_t) { return 25; });
  const float z = 1.25F;
  got = host::kto(chosen.data(), n, z, loss.data(), d.data());
  check(got.nonfinite == 0, "nonfinite", "kto", got.nonfinite, 0);
  for (std::size_t i = 0; i < chosen.size(); ++i) {
    const real sign = i % 2 == 0 ? 1 : -1;
    const real advantage = sign * beta * real{chosen[i] - z};
    const double room = 4 + std::abs(static_cast<double>(advantage));
    check(ulps(loss[i], oracle::sigmoid(-advantage)) <= room, "loss", "kto", loss[i],
          static_cast<double>(i));
    check(ulps(d[i], -sign * beta * oracle::sigmoid_slope(advantage)) <= room, "coefficient", "kto",
          d[i], static_cast<double>(i));
  }

  // NaN and infinity are found wherever they stand, on either side.
  for (const float bad : {nan, -nan, infinity, -infinity}) {
    for (const int at : {0, 1, 15, 16, 500, n - 1}) {
      for (auto* row : {&chosen, &rejected}) {
        std::swap((*row)[static_cast<std::size_t>(at)], const_cast<float&>(bad));
        got = host::dpo(chosen.data(), rejected.data(), n, loss.data(), d.data());
        std::swap((*row)[static_cast<std::size_t>(at)], const_cast<float&>(bad));
        check(got.nonfinite == 1 && got.first_nonfinite == at, "nonfinite", "dpo", got.nonfinite,
              at);
      }
    }
  }
}

void hold_scores(const char* name, const host::scores& got, const oracle::softmax_row& want,
                 real highest) {
  const auto near = [&](const char* what, double x, real y, double relative, double absolute) {
    check(testing::near(x, y, relative, absolute), what, name, x, static_cast<double>(y));
  };
  near("log p", got.log_prob, want.log_prob, 4e-6,
       4e-6 + std::ldexp(std::abs(double(highest)), -23));
  near("lse", got.lse, want.lse, 4e-6, 4e-6);
  near("entropy", got.entropy, want.entropy, 1e-5, 1e-5);
  near("sum of squares", got.sum_squares, want.sum_squares, 1e-5, 0);
  near("mean logit", got.mean_logit, want.mean_logit, 1e-5, 1e-5);
  check(got.target_is_argmax == want.target_is_argmax, "argmax", name, got.target_is_argmax, 0);
}

void one_token(const char* name, const std::vector<float>& logits, std::int64_t target) {
  const std::vector<real> exact(logits.begin(), logits.end());
  const auto want = oracle::softmax(exact, target);
  std::vector<float> gradient(logits.size());
  const auto columns = static_cast<std::int64_t>(logits.size());
  const real highest = *std::max_element(exact.begin(), exact.end());
  hold_scores(name, host::token(logits.data(), columns, target, gradient.data()), want, highest);
  hold_scores(name, host::split_token(logits.data(), columns, target), want, highest);
  for (std::size_t v = 0; v < logits.size(); ++v) {
    const double error = ulps(gradient[v], want.gradient[v]);
    check(error <= 8, "gradient", name, error, static_cast<double>(v));
  }
}

void tokens() {
  one_token("1 2 3 4", {1, 2, 3, 4}, 2);
  testing::random_source random{31};
  std::vector<float> logits;
  for (int v = 0; v < 50257; ++v) logits.push_back(static_cast<float>(random.normal(4)));
  one_token("50257 logits", logits, 1234);
  logits[77] = 60;
  one_token("a confident row", logits, 77);
  logits[78] = nan;
  std::vector<float> gradient(logits.size());
  const auto got = host::token(logits.data(), 50257, 1234, gradient.data());
  check(std::isnan(got.log_prob) && std::isnan(got.lse), "log p", "a row with NaN", got.log_prob,
        0);
  check(std::isnan(gradient[5]), "gradient", "a row with NaN", gradient[5], 5);
  logits[78] = -infinity;  // impossible, no more
  one_token("a row with -inf", logits, 1234);
}

}  // namespace

// usage: PROGRAM [PROCESSOR]    0 if all is right, 77 where the machine is no such processor
int main(int count, char** arguments) {
#if defined(__x86_64__)
  if (count > 1 && std::string_view{arguments[1]} == "x86-64-v3" &&
      !(__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))) {
    return 77;
  }
#else
  static_cast<void>(count);
  static_cast<void>(arguments);
#endif
  formulas();
  losses();
  tokens();
  if (failures > 0) std::printf("%d wrong\n", failures);
  return failures > 0 ? 1 : 0;
}
