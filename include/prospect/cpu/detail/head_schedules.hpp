// In what order a head pass goes through tokens and vocabulary: one schedule for each function of
// head.hpp. Arguments are checked here, before any work.
#pragma once

#include <prospect/cpu/detail/head_carried.hpp>
#include <prospect/cpu/detail/head_pass.hpp>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cpu::detail {
inline namespace PROSPECT_CPU_ISA {

/// `scored` is ascending; the others get what a token that is not scored gets.
template <std::floating_point R>
void zero_scores(const token_outputs<R>& out, std::span<const std::int64_t> scored,
                 std::int64_t tokens) {
  std::size_t next = 0;
  for (std::int64_t t = 0; t < tokens; ++t) {
    if (next < scored.size() && scored[next] == t) {
      ++next;
    } else {
      put_scores(out, t, {});
    }
  }
}

/// Outputs with the two that gradients are made from, whether the caller wants them or not.
template <std::floating_point R>
class with_log_probs {
 public:
  with_log_probs(const token_outputs<R>& out, std::int64_t rows) : outputs{out} {
    const auto n = static_cast<std::size_t>(rows);
    if (out.log_prob.empty()) outputs.log_prob = log_prob_ = std::vector<R>(n);
    if (out.lse.empty()) outputs.lse = lse_ = std::vector<double>(n);
  }
  with_log_probs(const with_log_probs&) = delete;
  with_log_probs& operator=(const with_log_probs&) = delete;

  token_outputs<R> outputs;

 private:
  std::vector<R> log_prob_;
  std::vector<double> lse_;
};

/// Log-probs, and of the first tokens the gradients as far as they can be kept: in front of the
/// workspace, a row for each.
template <class Products, class Gemm, class E>
head_ticket head_forward_pass(head_pass<Products, Gemm, E>& pass,
                              const token_outputs<typename Products::R>& out,
                              head_workspace<typename Products::R>& workspace, std::int64_t tokens,
                              bool keep_gradients) {
  using R = typename Products::R;
  check_outputs(out, tokens);
  const std::vector<std::int64_t> scored = pass.batch().scored();
  const std::span<const std::int64_t> all{scored};
  const auto n = static_cast<std::int64_t>(scored.size());
  const head_holds holds = keep_gradients ? head_holds::tiles : head_holds::sums;
  static_cast<void>(pass.batch().plan(1, holds));  // refuses a workspace that is too small
  zero_scores(out, all, tokens);
  workspace.forget();
  if (n == 0) return workspace.keep(pass.batch().origin(all), 0);

  const std::int64_t kept = keep_gradients ? pass.batch().sizes().tokens_to_keep(n) : 0;
  const std::int64_t kept_bytes = pass.batch().sizes().kept_bytes(kept);
  const std::int64_t threads = keep_gradients ? 0 : threads_of(pass.on());
  const auto plan_of_others = [&] {
    return pass.batch().plan(n - kept, holds, kept_bytes, threads);
  };
  std::byte* const memory =
      workspace.memory(keep_gradients ? pass.batch().sizes().most_beside(kept_bytes, n)
                                      : pass.batch().sizes().bytes(plan_of_others()));
  if (kept > 0) {
    const with_log_probs<R> both{out, tokens};
    const token_outputs<R>& needed = both.outputs;
    const head_plan plan = pass.batch().plan(kept, holds, kept_bytes);
    for_each_chunk(all.first(std::size_t(kept)), plan.rows, [&](auto chunk, std::int64_t first) {
      pass.begin(plan, chunk, memory + kept_bytes, pass.kept_row(memory, first));
      pass.scores(needed);
      pass.gradients_in_place(needed.log_prob, needed.lse);
    });
  }
  if (kept < n) {
    const head_plan plan = plan_of_others();
    for_each_chunk(all.subspan(std::size_t(kept)), plan.rows, [&](auto chunk, std::int64_t) {
      pass.begin(plan, chunk, memory + kept_bytes);
      pass.scores(out);
    });
  }
  return workspace.keep(pass.batch().origin(all), kept);
}

template <class Products, class Gemm, class E>
void head_frozen_pass(head_pass<Products, Gemm, E>& pass,
                      const token_outputs<typename Products::R>& out,
                      const matrix_view<typename Products::S>& d_hidden,
                      head_workspace<typename Products::R>& workspace, std::int64_t tokens) {
  check_outputs(out, tokens);
  const std::vector<std::int64_t> scored = pass.batch().scored();
  const auto n = static_cast<std::int64_t>(scored.size());
  const head_plan plan = pass.batch().plan(n, head_holds::tiles, 0, threads_of(pass.on()));
  zero_scores(out, std::span<const std::int64_t>{scored}, tokens);
  pass.batch().clear({.hidden = d_hidden}, n > 0);
  workspace.forget();
  std::byte* const memory = workspace.memory(pass.batch().sizes().bytes(plan));
  for_each_chunk(std::span<const std::int64_t>{scored}, plan.rows, [&](auto chunk, std::int64_t) {
    pass.begin(plan, chunk, memory);
    carried_gradient<Products, Gemm, E>{pass}.run(out, d_hidden);
  });
}

/// How many tokens' gradients can be used: all that were kept, or none if a GEMM that takes other
/// types than the forward pass's needs more memory beside them than that has taken.
template <class Products>
std::int64_t still_kept(const head_sizes<Products>& sizes,
                        const head_workspace<typename Products::R>& workspace,
                        const head_ticket& ticket, std::int64_t scored) {
  const std::int64_t kept = workspace.kept(ticket);
  const std::int64_t bytes = sizes.kept_bytes(kept);
  const bool fits = sizes.plan(1, head_holds::tiles, bytes).rows > 0 &&
                    workspace.holds(sizes.most_beside(bytes, scored));
  return fits ? kept : 0;
}

template <class Products, class Gemm, class E>
void head_backward_pass(head_pass<Products, Gemm, E>& pass,
                        strided_span<const typename Products::R> log_prob,
                        strided_span<const double> lse,
                        const coefficient_rows<typename Products::R>& coefficients,
                        const head_gradients<typename Products::S>& gradients,
                        const head_ticket& ticket,
                        head_workspace<typename Products::R>& workspace) {
  require_row("log_prob", log_prob, pass.batch().tokens());
  require_row("lse", lse, pass.batch().tokens());
  pass.batch().check(gradients);
  std::vector<std::int64_t> scored = pass.batch().scored();
  if (const char* why = workspace.problem(ticket, pass.batch().origin(scored)))
    reject("ticket", why);
  const std::int64_t kept_tokens =
      still_kept(pass.batch().sizes(), workspace, ticket, static_cast<std::int64_t>(scored.size()));
  const auto first_other = static_cast<std::size_t>(kept_tokens);
  std::vector<std::int64_t> others;
  bool any_kept = false;
  for (std::size_t i = 0; i < scored.size(); ++i) {
    const auto by = coefficients[scored[i]];
    const bool is_kept = i < first_other && takes_part(by, head_source::gradients);
    any_kept = any_kept || is_kept;
    if (!is_kept && takes_part(by, head_source::nothing)) others.push_back(scored[i]);
  }
  std::vector<std::int64_t> kept = std::move(scored);
  kept.resize(any_kept ? first_other : 0);
  const std::int64_t kept_bytes = pass.batch().sizes().kept_bytes(kept_tokens);
  static_cast<void>(pass.batch().plan(1, head_holds::tiles,
                                      kept_bytes));  // refuses a workspace that is too small
  pass.batch().clear(gradients, !kept.empty() || !others.empty());

  bool accumulate = gradients.accumulate;
  const auto run = [&](const std::vector<std::int64_t>& tokens, head_source from) {
    if (tokens.empty()) return;
    head_plan plan =
        pass.batch().plan(static_cast<std::int64_t>(tokens.size()), head_holds::tiles, kept_bytes);
    // Where gradients were kept the forward pass has taken as much already.
    std::byte* const memory = workspace.memory(kept_bytes + pass.batch().sizes().bytes(plan));
    for_each_chunk(
        std::span<const std::int64_t>{tokens}, plan.rows, [&](auto chunk, std::int64_t first) {
          pass.begin(plan, chunk, memory + kept_bytes,
                     from == head_source::gradients ? pass.kept_row(memory, first) : nullptr);
          pass.gradients(from, log_prob, lse, coefficients, gradients, accumulate);
          accumulate = true;
        });
  };
  // Once used they are scaled: a second call, or one after an exception, computes them again.
  workspace.forget();
  run(kept, head_source::gradients);
  run(others, head_source::nothing);
}

/// Sequences [first, last) and their scored tokens, [taken, next) of all that are scored.
struct head_part {
  std::int64_t first, last;
  std::size_t taken, next;
};

/// As many groups of sequences at a time as fit.
template <class Products, class Gemm, class E>
std::vector<head_part> head_parts(const head_pass<Products, Gemm, E>& pass, const head_plan& plan,
                                  std::span<const std::int64_t> scored,
                                  const sequence_layout& layout, std::int64_t group) {
  std::vector<head_part> parts;
  const auto even =
      static_cast<std::size_t>(even_chunk(static_cast<std::int64_t>(scored.size()), plan.rows));
  std::size_t next = 0;
  for (std::int64_t first = 0; first < layout.sequences(); first += group) {
    const std::size_t start = next;
    const std::int64_t last = first + group;
    while (next < scored.size() && scored[next] < layout.end(last - 1)) ++next;
    const bool joins = !parts.empty() &&
                       next - parts.back().taken <= static_cast<std::size_t>(plan.rows) &&
                       parts.back().next - parts.back().taken < even;
    if (joins) {
      parts.back().last = last;
      parts.back().next = next;
      continue;
    }
    const auto tokens = static_cast<std::int64_t>(next - start);
    if (tokens > plan.rows) {
      pass.batch().reject_workspace(
          pass.batch().sizes().bytes(
              {round_up(tokens, row_multiple), plan.window, plan.wave, plan.holds}),
          "for sequences " + std::to_string(first) + " to " + std::to_string(last - 1));
    }
    parts.push_back({first, last, start, next});
  }
  return parts;
}

template <class Products, class Ready, class Gemm, class E>
void head_one_pass(head_pass<Products, Gemm, E>& pass, const sequence_layout& layout,
                   std::int64_t group, const token_outputs<typename Products::R>& out,
                   const Ready& ready, const coefficient_rows<typename Products::R>& coefficients,
                   const head_gradients<typename Products::S>& gradients,
                   head_workspace<typename Products::R>& workspace) {
  require_row("log_prob", out.log_prob, pass.batch().tokens());
  require_row("lse", out.lse, pass.batch().tokens());
  check_outputs(out, pass.batch().tokens());
  check_layout(layout, pass.batch().tokens());
  if (group < 1 || layout.sequences() % group != 0) {
    reject("group", "must divide the number of sequences");
  }
  pass.batch().check(gradients);
  const std::vector<std::int64_t> all = pass.batch().scored(layout);
  const std::span<const std::int64_t> scored{all};
  const auto n = static_cast<std::int64_t>(scored.size());
  const head_plan plan = pass.batch().plan(n, head_holds::whole_rows);
  const std::vector<head_part> parts = head_parts(pass, plan, scored, layout, group);

  zero_scores(out, scored, pass.batch().tokens());
  pass.batch().clear(gradients, n > 0);
  workspace.forget();
  std::byte* const memory = workspace.memory(pass.batch().sizes().bytes(plan));
  bool accumulate = gradients.accumulate;
  for (const head_part& p : parts) {
    const auto tokens = scored.subspan(p.taken, p.next - p.taken);
    if (!tokens.empty()) {
      pass.begin(plan, tokens, memory);
      pass.scores(out);
    }
    ready(p.first, p.last);
    if (!tokens.empty()) {
      pass.gradients(head_source::logits, out.log_prob, out.lse, coefficients, gradients,
                     accumulate);
      accumulate = true;
    }
  }
}

}  // namespace PROSPECT_CPU_ISA
}  // namespace prospect::inline v2::cpu::detail
PROSPECT_STRICT_END
