// Batches of phase 2 in the form the C surface takes, and the headers' code around the loops that
// the archive has chosen, which are held against the oracle in tests/kernels.

#pragma once

#include <kernels/loops.hpp>
#include <prospect/cpu/sequences.hpp>

#include <cmath>
#include <cstdint>
#include <limits>

#include "c/surface.hpp"
#include "cpu/cases.hpp"

namespace testing {

template <class S>
prospect_pairs c_args(paired_case<S>& c) {
  auto args = sized<prospect_pairs>();
  args.policy_chosen = c_row(c.policy_chosen);
  args.policy_rejected = c_row(c.policy_rejected);
  args.reference_chosen = c_row(c.reference_chosen);
  args.reference_rejected = c_row(c.reference_rejected);
  args.chosen_tokens = c_row(c.chosen_tokens);
  args.rejected_tokens = c_row(c.rejected_tokens);
  args.loss = c_row(c.loss);
  args.d_policy_chosen = c_row(c.d_chosen);
  args.d_policy_rejected = c_row(c.d_rejected);
  args.reward_chosen = c_row(c.reward_chosen);
  args.reward_rejected = c_row(c.reward_rejected);
  return args;
}

template <class S>
prospect_completions c_args(unpaired_case<S>& c) {
  auto args = sized<prospect_completions>();
  args.z = 0.5;
  args.z_raw = 0.25;
  args.policy = c_row(c.policy);
  args.reference = c_row(c.reference);
  args.desirable = c_row(c.desirable);
  args.tokens = c_row(c.tokens);
  if (c.targets) args.target = c_row(c.reference);
  args.loss = c_row(c.loss);
  args.d_policy = c_row(c.d_policy);
  args.reward = c_row(c.reward);
  return args;
}

inline prospect_status evaluate_c(const prospect_loss& loss, const prospect_pairs& args,
                                  prospect_metrics* metrics, prospect_error* error = nullptr) {
  return prospect_pairs_cpu(&loss, &args, metrics, nullptr, error);
}
inline prospect_status evaluate_c(const prospect_loss& loss, const prospect_completions& args,
                                  prospect_metrics* metrics, prospect_error* error = nullptr) {
  return prospect_completions_cpu(&loss, &args, metrics, nullptr, error);
}

template <class L>
auto evaluate_cpp(const L& loss, const prospect::paired_batch<>& in,
                  const prospect::paired_outputs<>& out, prospect::normaliser by) {
  auto& on = prospect::thread_pool::shared();
  namespace pk = prospect::kernels;
  using prospect::cpu::detail::evaluate_pairs;
  const prospect::any_paired any{loss};
  return prospect::detail::in_fp64(in)
             ? evaluate_pairs(pk::loops<double, prospect::any_paired>(), any, in, out, by, on)
             : evaluate_pairs(pk::loops<float, prospect::any_paired>(), any, in, out, by, on);
}
template <class L, class Point>
auto evaluate_cpp(const L& loss, const prospect::unpaired_batch<>& in, const Point& point,
                  const prospect::unpaired_outputs<>& out, prospect::normaliser by) {
  auto& on = prospect::thread_pool::shared();
  namespace pk = prospect::kernels;
  using prospect::cpu::detail::evaluate_completions;
  const prospect::any_unpaired any{loss};
  return prospect::detail::in_fp64(in)
             ? evaluate_completions(pk::loops<double, prospect::any_unpaired>(), any, in, point,
                                    out, by, on)
             : evaluate_completions(pk::loops<float, prospect::any_unpaired>(), any, in, point, out,
                                    by, on);
}

inline bool same_number(double a, double b) { return a == b || (std::isnan(a) && std::isnan(b)); }

inline void check_metrics(const c_metrics& got, const auto& want) {
  CHECK(same_number(got.metrics.total, want.total));
  CHECK(got.metrics.first_nonfinite == want.first_nonfinite);
  const auto named = want.named();
  REQUIRE(got.metrics.size == static_cast<std::int32_t>(named.size()));
  for (std::size_t k = 0; k < named.size(); ++k) {
    CAPTURE(std::string{named[k].name});
    CHECK(named[k].name == got.room[k].name);
    CHECK(same_number(got.room[k].sum, named[k].value.sum));
    CHECK(got.room[k].count == named[k].value.count);
  }
}

}  // namespace testing
