// A host that is compiled with flags of its own: formulas in its own functions, outside of every
// pragma of the library, and the library's own losses and token phases.
#include "host.hpp"

#include <prospect/cpu/sequences.hpp>
#include <prospect/cpu/tokens.hpp>
#include <prospect/losses/losses.hpp>

#include <algorithm>
#include <cstdint>
#include <vector>

namespace {

template <class T>
T formula_of(int which, const T& x) {
  switch (which) {
    case host::exp:
      return prospect::exp(x);
    case host::expm1:
      return prospect::expm1(x);
    case host::log:
      return prospect::log(x);
    case host::log1p:
      return prospect::log1p(x);
    case host::sigmoid:
      return prospect::sigmoid(x);
    case host::softplus:
      return prospect::softplus(x);
    case host::log_sigmoid:
      return prospect::log_sigmoid(x);
    case host::log1mexp:
      return prospect::log1mexp(x);
    case host::tanh:
      return prospect::tanh(x);
    case host::sqrt:
      return prospect::sqrt(x);
    case host::abs:
      return prospect::abs(x);
    case host::relu:
      return prospect::relu(x);
    case host::square:
      return prospect::square(x);
    case host::clamp: {
      using bound = prospect::scalar_of_t<T>;
      return prospect::clamp(x, bound(-1), bound(1.5));
    }
    case host::pow_tenth:
      return prospect::pow(x, 0.1);
    case host::pow_cube:
      return prospect::pow(x, 3);
    case host::pow_2_to_the:
      return prospect::pow(2, x);
    case host::pow_both:
      return prospect::pow(x, x);
    default:
      return 1 / x;
  }
}

template <bool lanes>
struct formula_loss {
  int which;
  template <class T>
  T operator()(const prospect::pair<T>& p) const {
    return formula_of(which, p.chosen.log_ratio());
  }
};
struct vector_loss : formula_loss<true> {
  static constexpr bool branch_free = true;
};

template <class S>
struct rows {
  std::vector<S> zero;
  prospect::paired_batch<S> in;
  prospect::paired_outputs<S> out;
  rows(const S* chosen, const S* rejected, int n, S* loss, S* d_chosen)
      : zero(static_cast<std::size_t>(n)) {
    in.policy_chosen = {chosen, n};
    in.reference_chosen = zero;
    in.policy_rejected = {rejected == nullptr ? zero.data() : rejected, n};
    in.reference_rejected = zero;
    out.loss = {loss, n};
    out.d_policy_chosen = {d_chosen, n};
  }
  template <class Loss>
  host::results evaluate(const Loss& loss) const {
    const auto metrics = prospect::cpu::evaluate<S>(loss, in, out, prospect::normaliser::sum());
    return {metrics.nonfinite.sum, metrics.first_nonfinite};
  }
};

}  // namespace

namespace host {

void by_itself(int which, const float* x, int n, float* value) {
  for (int i = 0; i < n; ++i) value[i] = formula_of(which, x[i]);
}

results as_loss(int which, bool branch_free, const float* x, int n, float* value, float* slope) {
  const rows<float> all(x, nullptr, n, value, slope);
  return branch_free ? all.evaluate(vector_loss{{which}})
                     : all.evaluate(formula_loss<false>{which});
}
results as_loss(int which, const double* x, int n, double* value, double* slope) {
  return rows<double>(x, nullptr, n, value, slope).evaluate(formula_loss<false>{which});
}

results dpo(const float* chosen, const float* rejected, int n, float* loss, float* d_chosen) {
  return rows<float>(chosen, rejected, n, loss, d_chosen).evaluate(prospect::dpo{});
}
results ipo(const float* chosen, const float* rejected, int n, float* loss, float* d_chosen) {
  rows<float> all(chosen, rejected, n, loss, d_chosen);
  const std::vector<std::int32_t> tokens(static_cast<std::size_t>(n), 1);
  all.in.chosen_tokens = tokens;
  all.in.rejected_tokens = tokens;
  return all.evaluate(prospect::ipo{});
}
results kto(const float* ratio, int n, double z, float* loss, float* d_policy) {
  const std::vector<float> zero(static_cast<std::size_t>(n));
  std::vector<std::uint8_t> desirable(static_cast<std::size_t>(n));
  for (std::size_t i = 0; i < desirable.size(); i += 2) desirable[i] = 1;
  prospect::unpaired_batch<float> in;
  in.policy = {ratio, n};
  in.reference = zero;
  in.desirable = desirable;
  prospect::unpaired_outputs<float> out;
  out.loss = {loss, n};
  out.d_policy = {d_policy, n};
  const auto metrics = prospect::cpu::evaluate<float>(
      prospect::kto{}, in, prospect::constant_point(z), out, prospect::normaliser::sum());
  return {metrics.nonfinite.sum, metrics.first_nonfinite};
}

namespace {

struct one_row {
  scores s{};
  prospect::token_outputs<float> out{.log_prob = {&s.log_prob, 1},
                                     .lse = {&s.lse, 1},
                                     .entropy = {&s.entropy, 1},
                                     .sum_squares = {&s.sum_squares, 1},
                                     .mean_logit = {&s.mean_logit, 1},
                                     .target_is_argmax = {&s.target_is_argmax, 1}};
};

}  // namespace

scores token(const float* logits, std::int64_t columns, std::int64_t target, float* gradient) {
  one_row row;
  const std::vector<std::int64_t> targets{target};
  prospect::cpu::token_log_probs<float>({logits, 1, columns}, targets, row.out);
  std::copy(logits, logits + columns, gradient);
  const float one = 1;
  prospect::cpu::logits_gradient<float>({gradient, 1, columns}, targets,
                                        prospect::strided_span<const float>{&row.s.log_prob, 1},
                                        prospect::strided_span<const double>{&row.s.lse, 1},
                                        prospect::strided_span<const float>{&one, 1});
  return row.s;
}

scores split_token(const float* logits, std::int64_t columns, std::int64_t target) {
  one_row row;
  const std::vector<std::int64_t> targets{target};
  const std::int64_t half = columns / 2;
  std::vector<prospect::vocabulary_partial> parts(2);
  for (int part = 0; part < 2; ++part) {
    prospect::token_options options;
    options.first_token = part * half;
    options.vocabulary = columns;
    prospect::cpu::vocabulary_partials<float>(
        {logits + part * half, 1, part == 0 ? half : columns - half}, targets,
        prospect::strided_span<prospect::vocabulary_partial>{&parts[static_cast<std::size_t>(part)],
                                                             1},
        options, true);
  }
  prospect::cpu::token_log_probs<float>({parts.data(), 2, 1}, targets, row.out);
  return row.s;
}

}  // namespace host
