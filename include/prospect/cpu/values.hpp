// Losses of value estimates on the CPU: a value, an old value and a return for each token in;
// losses, coefficients and metrics out. The companion of policy-gradient losses in PPO.
#pragma once

#include <prospect/core/float_mode.hpp>
#include <prospect/cpu/detail/samples.hpp>
#include <prospect/cpu/detail/scored_rows.hpp>
#include <prospect/cpu/detail/sequence_sums.hpp>
#include <prospect/cpu/token_checks.hpp>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cpu {

namespace detail {

struct value_sum {
  enum { loss, size };
};

inline namespace PROSPECT_CPU_ISA {

/// Where a block of estimates is, and where its results go.
template <std::floating_point R>
struct values_at {
  const R* value;
  const R* old_value;
  const R* returns;
  const std::uint8_t* scored;
  results_at<R> loss, d_value;

  bool counted(std::int64_t i) const { return scored[i] != 0; }
  bool finite(std::int64_t i) const {
    using prospect::detail::is_finite;
    return is_finite(value[i]) && is_finite(old_value[i]) && is_finite(returns[i]) &&
           loss.finite(i) && d_value.finite(i);
  }
};

/// The losses and derivatives of several estimates; those that do not count are not asked for.
template <std::floating_point R, class Loss>
value_gradient<several<R>> values_of(const Loss& loss, several<R> value, several<R> old_value,
                                     several<R> returns, flag_of<several<R>> counted) {
  if constexpr (lanewise<Loss, R>) {
    return differentiate(loss, value_estimate<several<R>>{value, old_value, returns});
  } else {
    value_gradient<several<R>> values{};
    for (int k = 0; k < lanes<R>; ++k) {
      if (!counted[k]) continue;
      const auto one =
          differentiate(loss, value_estimate<R>{value.lane[k], old_value.lane[k], returns.lane[k]});
      values.loss.lane[k] = one.loss;
      values.d_value.lane[k] = one.d_value;
    }
    return values;
  }
}

template <std::floating_point R, class Loss>
[[gnu::flatten]] tally<value_sum::size> value_results(const Loss& loss, const value_batch& in,
                                                      const value_outputs& out, double factor,
                                                      range piece) {
  const times<R> by_factor{factor};
  const several<R> none = 0;
  row_reader<R> value{in.value};
  row_reader<R> old_value{in.old_value};
  row_reader<R> returns{in.returns};
  row_writer<R> losses{out.loss};
  row_writer<R> d_value{out.d_value};
  block<std::uint8_t> scored;
  tally<value_sum::size> seen;
  for_each_block(piece, [&](range at) {
    const int n = whole_vectors(at);
    for (int i = 0; i < n; ++i) {
      scored.row[i] = i < at.count && (in.mask.empty() || in.mask[at.first + i]);
    }
    const values_at<R> rows{.value = value.read(at),
                            .old_value = old_value.read(at),
                            .returns = returns.read(at),
                            .scored = scored.row,
                            .loss = {losses.begin(at), losses.limit()},
                            .d_value = {d_value.begin(at), d_value.limit()}};
    running_tally<value_sum::size> here{seen};
    finite_probe<R> probe;
    for (int i = 0; i < n; i += lanes<R>) {
      const several<R> one = load_several<R>(rows.scored + i);
      const auto counted = none < one;
      const auto kept = [&](several<R> x) { return select(counted, x, none); };
      const several<R> v = kept(load_several(rows.value + i));
      const several<R> before = kept(load_several(rows.old_value + i));
      const several<R> came = kept(load_several(rows.returns + i));
      const auto result = values_of<R>(loss, v, before, came, counted);
      const several<R> l = kept(result.loss);
      const several<R> d = kept(by_factor(result.d_value));
      store_several(rows.loss.row + i, l);
      store_several(rows.d_value.row + i, d);
      here.add(value_sum::loss, i, l);
      probe.look_at(v, before, came, l, d);
    }
    here.store_to(seen);
    bool finite = here.finite() && probe.finite();
    finite &= losses.write(at);
    finite &= d_value.write(at);
    if (!finite) note_nonfinite(seen, at, rows);
  });
  return seen;
}

template <std::floating_point R, class Loss, executor E>
value_metrics evaluate_values(const Loss& loss, const value_batch& in, const value_outputs& out,
                              const normaliser& by, E& on) {
  static_assert(value_loss<Loss, R>,
                "prospect: a batch of values needs a value loss: a trivially copyable type with "
                "`template <class T> T operator()(const prospect::value_estimate<T>&) const`");
  const prospect::detail::default_float_mode mode;
  const std::int64_t n = in.value.size();
  parameters(problem(loss));
  valid(by);
  require_row("value", in.value, n);
  require_row("old_value", in.old_value, n);
  require_row("returns", in.returns, n);
  check_mask(in.mask, n);
  output_row("loss", out.loss, n);
  output_row("d_value", out.d_value, n);
  if (n == 0) return {};
  const index_row no_targets;
  const auto counted = static_cast<double>(scored_rows{no_targets, in.mask}.find(0, n).count);
  const double factor = by.factor(counted);
  const auto sums =
      in_pieces(n, on, [&](range piece) { return value_results<R>(loss, in, out, factor, piece); });
  value_metrics metrics{.loss = {.sum = sums.total(value_sum::loss), .count = counted},
                        .nonfinite = {.sum = static_cast<double>(sums.nonfinite), .count = counted},
                        .first_nonfinite = sums.first_nonfinite,
                        .total = factor * sums.total(value_sum::loss)};
  prospect::detail::settle(metrics);
  return metrics;
}

}  // namespace PROSPECT_CPU_ISA
}  // namespace detail

inline namespace PROSPECT_CPU_ISA {

/// Evaluates a loss of value estimates, `clipped_value` for example, its gradient and its metrics
/// on n = `in.value.size()` tokens.
///
/// A token that the mask leaves out is not read: its results are 0 and it is not counted.
/// `normaliser::mean` divides by the number of scored tokens of the call. Rows hold what they hold:
/// arithmetic is fp64 if one that is read is, else fp32. A NaN or infinity stays with its token and
/// is reported. Threads change nothing but the time; nothing is allocated.
///
/// @throws std::invalid_argument, before any work: a row of the wrong size or that describes no
///         memory, an output of stride 0, an invalid hyper-parameter.
template <class Loss, executor E = thread_pool>
value_metrics evaluate(const Loss& loss, const value_batch& in, const value_outputs& out,
                       normaliser by = normaliser::mean(), E& on = thread_pool::shared()) {
  return prospect::detail::in_fp64(in) ? detail::evaluate_values<double>(loss, in, out, by, on)
                                       : detail::evaluate_values<float>(loss, in, out, by, on);
}

}  // namespace PROSPECT_CPU_ISA
}  // namespace prospect::inline v2::cpu
PROSPECT_STRICT_END
