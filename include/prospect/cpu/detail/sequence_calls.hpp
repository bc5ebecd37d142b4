// Calls of phase 2, with the kernels of any instruction set: what is checked before any work, how
// rows are counted, and what sums become. The API that picks the kernels is cpu/sequences.hpp.
#pragma once

#include <prospect/core/float_mode.hpp>
#include <prospect/cpu/checks.hpp>
#include <prospect/cpu/detail/pair_indices.hpp>
#include <prospect/cpu/detail/sequence_kernels.hpp>
#include <prospect/reference_point.hpp>

#include <algorithm>
#include <initializer_list>
#include <iterator>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cpu {

/// The clamped mean log-ratio of each class (nats): what `cross_class` measures the other class
/// against. An absent class gives 0; rows that are not finite are left out.
struct class_points {
  reference_point desirable;
  reference_point undesirable;
  double n_desirable = 0;
  double n_undesirable = 0;
};

namespace detail {
inline namespace PROSPECT_CPU_ISA {

/// A row of token counts by name, of how many sequences, and the indices it is seen through.
struct given_tokens {
  std::string_view name;
  strided_span<const std::int32_t> row;
  std::int64_t sequences;
  indices_at through = nullptr;
};

/// Checks token counts and finds how many of n rows have tokens on every side, of which there are
/// one or two.
template <executor E>
double count_rows(std::initializer_list<given_tokens> sides, std::int64_t n, E& on) {
  for (const given_tokens& side : sides) optional_row(side.name, side.row, side.sequences);
  const auto is_given = [](const given_tokens& side) { return !side.row.empty(); };
  if (std::none_of(sides.begin(), sides.end(), is_given)) return static_cast<double>(n);
  const token_tally seen = in_pieces(n, on, [&](range piece) {
    const given_tokens& last = *std::prev(sides.end());
    element_reader<std::int32_t> side{sides.begin()->row, sides.begin()->through};
    element_reader<std::int32_t> other{last.row, last.through};
    token_tally all;
    for_each_block(piece,
                   [&](range at) { all.add(side.read(at), other.read(at), whole_vectors(at)); });
    return all;
  });
  if (seen.negative) {
    for (const given_tokens& side : sides) token_counts(side.name, side.row, side.sequences);
  }
  return static_cast<double>(seen.counted);
}

/// How many of n pairs are counted, and how many tokens of theirs their next-token term is over
/// (0 where nobody asks).
struct pair_counts {
  double pairs = 0;
  double tokens = 0;
};
template <executor E>
pair_counts count_pairs(const given_tokens& chosen, const given_tokens& rejected,
                        const given_tokens& third, const next_token_term& counted, std::int64_t n,
                        E& on) {
  if (counted.weight == 0 && third.row.empty()) {
    return {.pairs = count_rows({chosen, rejected}, n, on)};
  }
  for (const given_tokens& side : {chosen, rejected, third}) {
    optional_row(side.name, side.row, side.sequences);
  }
  const token_tally seen = in_pieces(n, on, [&](range piece) {
    element_reader<std::int32_t> side{chosen.row, chosen.through};
    element_reader<std::int32_t> other{rejected.row, rejected.through};
    element_reader<std::int32_t> more{third.row, third.through};
    token_tally all;
    for_each_block(piece, [&](range at) {
      all.add_pairs(side.read(at), other.read(at), third.row.empty() ? nullptr : more.read(at),
                    counted.chosen, whole_vectors(at));
    });
    return all;
  });
  if (seen.negative) {
    for (const given_tokens& side : {chosen, rejected, third}) {
      token_counts(side.name, side.row, side.sequences);
    }
  }
  return {.pairs = static_cast<double>(seen.counted), .tokens = static_cast<double>(seen.tokens)};
}
/// The term as far as its tokens are to be counted here.
inline next_token_term counted_term(const next_token_term& term, const normaliser& by) {
  return by.counts_tokens() ? term : next_token_term{};
}

/// Results per pair, as they are checked by name.
inline void paired_output_rows(const paired_outputs<>& out, std::int64_t n) {
  output_row("loss", out.loss, n);
  output_row("d_policy_chosen", out.d_policy_chosen, n);
  output_row("d_policy_rejected", out.d_policy_rejected, n);
  output_row("reward_chosen", out.reward_chosen, n);
  output_row("reward_rejected", out.reward_rejected, n);
  output_row("d_policy_third", out.d_policy_third, n);
}

/// n pairs that were checked, of which so many are counted.
template <std::floating_point R, class Loss, executor E>
paired_metrics checked_pairs(const paired_kernels<R, Loss>& kernels, const Loss& loss,
                             const paired_batch<>& in, const paired_outputs<>& out,
                             const pair_indices& which, std::int64_t n, const pair_counts& counts,
                             const normaliser& by, E& on) {
  const double n_counted = counts.pairs;
  const double factor = by.factor(n_counted);
  const next_token_term term = next_token_of(loss);
  const token_slope next{
      .slope = term.weight == 0 ? 0 : term.weight * by.token_share(n_counted, counts.tokens),
      .chosen = term.chosen,
      .third = !in.policy_third.empty()};
  using sum = paired_sum;
  const auto sums = in_pieces(n, on, [&](range piece) {
    return kernels.results(loss, in, out, which, factor, next, piece);
  });
  const auto of = [&](int at) { return sum_count{.sum = sums.total(at), .count = n_counted}; };
  paired_metrics metrics{
      .loss = of(sum::loss),
      .rewards_chosen = of(sum::chosen),
      .rewards_rejected = of(sum::rejected),
      .rewards_margins = {.sum = sums.total(sum::chosen) - sums.total(sum::rejected),
                          .count = n_counted},
      .rewards_accuracies = of(sum::accurate),
      .logps_chosen = of(sum::logp_chosen),
      .logps_rejected = of(sum::logp_rejected),
      .nonfinite = {.sum = static_cast<double>(sums.nonfinite), .count = n_counted},
      .first_nonfinite = sums.first_nonfinite,
      .total = factor * of(sum::loss).sum};
  prospect::detail::settle(metrics);
  return metrics;
}

template <std::floating_point R, class Loss, executor E>
paired_metrics evaluate_pairs(const paired_kernels<R, Loss>& kernels, const Loss& loss,
                              const paired_batch<>& in, const paired_outputs<>& out,
                              const normaliser& by, E& on) {
  const prospect::detail::default_float_mode mode;
  const std::int64_t n = in.policy_chosen.size();
  parameters(problem(loss));
  valid(by);
  require_row("policy_chosen", in.policy_chosen, n);
  require_row("policy_rejected", in.policy_rejected, n);
  optional_row("reference_chosen", in.reference_chosen, n);
  optional_row("reference_rejected", in.reference_rejected, n);
  optional_row("weight", in.weight, n);
  optional_row("margin", in.margin, n);
  optional_row("policy_third", in.policy_third, n);
  const next_token_term term = next_token_of(loss);
  const pair_counts counts = count_pairs(
      {"chosen_tokens", in.chosen_tokens, n}, {"rejected_tokens", in.rejected_tokens, n},
      {"third_tokens", in.third_tokens, n}, counted_term(term, by), n, on);
  paired_output_rows(out, n);
  if (n == 0) return {};
  reference_rows<R>(loss, {{"reference_chosen", !in.reference_chosen.empty()},
                           {"reference_rejected", !in.reference_rejected.empty()}});
  tokens_rows<R>(loss, {{"chosen_tokens", !in.chosen_tokens.empty()},
                        {"rejected_tokens", !in.rejected_tokens.empty()}});
  margin_row<R>(loss, !in.margin.empty());
  next_tokens(term, by,
              {.policy = !in.policy_third.empty(),
               .tokens = !in.third_tokens.empty(),
               .d_policy = !out.d_policy_third.empty(),
               .chosen_tokens = !in.chosen_tokens.empty()},
              "policy_third", "chosen_tokens");
  return checked_pairs(kernels, loss, in, out, {}, n, counts, by, on);
}

/// Among sequences.
template <std::floating_point R, class Loss, executor E>
paired_metrics evaluate_pairs(const paired_kernels<R, Loss>& kernels, const Loss& loss,
                              const indexed_pairs& in, const indexed_outputs& out,
                              const normaliser& by, E& on) {
  const prospect::detail::default_float_mode mode;
  const std::int64_t n = in.chosen.size();
  const std::int64_t sequences = in.policy.size();
  parameters(problem(loss));
  valid(by);
  if (sequences == 0 && n > 0) reject("policy", "is missing");
  require_row("policy", in.policy, sequences);
  optional_row("reference", in.reference, sequences);
  optional_row("tokens", in.tokens, sequences);
  describes_memory("chosen", in.chosen.problem());
  describes_memory("rejected", in.rejected.problem());
  if (in.rejected.size() != n) {
    reject("rejected", "has " + std::to_string(in.rejected.size()) + " indices, and chosen " +
                           std::to_string(n));
  }
  describes_memory("third", in.third.problem());
  if (!in.third.empty() && in.third.size() != n) {
    reject("third",
           "has " + std::to_string(in.third.size()) + " indices, and chosen " + std::to_string(n));
  }
  optional_row("weight", in.weight, n);
  optional_row("margin", in.margin, n);
  paired_output_rows(prospect::detail::any_rows(out), n);
  output_row("d_policy", out.d_policy, sequences);
  const pair_indices which{
      .chosen = in.chosen, .rejected = in.rejected, .d_policy = out.d_policy, .third = in.third};
  pairs_among(which, sequences);
  const bool third = !in.third.empty();
  const next_token_term term = next_token_of(loss);
  const pair_counts counts =
      count_pairs({"tokens", in.tokens, sequences, given(in.chosen)},
                  {"tokens", in.tokens, sequences, given(in.rejected)},
                  {"tokens", third ? in.tokens : strided_span<const std::int32_t>{}, sequences,
                   given(in.third)},
                  counted_term(term, by), n, on);
  if (n > 0) {
    reference_rows<R>(loss, {{"reference", !in.reference.empty()}});
    tokens_rows<R>(loss, {{"tokens", !in.tokens.empty()}});
    margin_row<R>(loss, !in.margin.empty());
    next_tokens(term, by,
                {.policy = third,
                 .tokens = third && !in.tokens.empty(),
                 .d_policy = !out.d_policy_third.empty(),
                 .chosen_tokens = !in.tokens.empty()},
                "third", "tokens");
  }
  set_to_zero(out.d_policy);
  if (n == 0) return {};
  return checked_pairs(kernels, loss, prospect::detail::any_rows(in),
                       prospect::detail::any_rows(out), which, n, counts, by, on);
}

template <executor E>
class_points class_points_of(tally<class_sum::size> (*ratios)(const unpaired_batch<>&, range),
                             const unpaired_batch<>& in, E& on) {
  const prospect::detail::default_float_mode mode;
  using sum = class_sum;
  const auto sums = in_pieces(in.policy.size(), on, [&](range piece) { return ratios(in, piece); });
  const auto of = [&](int which) { return sums.total(which); };
  class_points points{
      .desirable =
          reference_point::from({.sum = of(sum::desirable), .count = of(sum::n_desirable)}),
      .undesirable =
          reference_point::from({.sum = of(sum::undesirable), .count = of(sum::n_undesirable)}),
      .n_desirable = of(sum::n_desirable),
      .n_undesirable = of(sum::n_undesirable)};
  prospect::detail::settle(points);
  return points;
}

/// The input rows of completions, and how many are counted.
template <executor E>
double check_completions(const unpaired_batch<>& in, E& on) {
  const std::int64_t n = in.policy.size();
  require_row("policy", in.policy, n);
  optional_row("reference", in.reference, n);
  require_row("desirable", in.desirable, n);
  optional_row("weight", in.weight, n);
  optional_row("target", in.target, n);
  return count_rows({{"tokens", in.tokens, n}}, n, on);
}

/// Checks a call and counts its rows.
template <std::floating_point R, class Loss, executor E>
double check_unpaired(const Loss& loss, const unpaired_batch<>& in, const unpaired_outputs<>& out,
                      const normaliser& by, E& on) {
  const std::int64_t n = in.policy.size();
  parameters(problem(loss));
  valid(by);
  const double n_counted = check_completions(in, on);
  output_row("loss", out.loss, n);
  output_row("d_policy", out.d_policy, n);
  output_row("reward", out.reward, n);
  if (n == 0) return 0;
  reference_rows<R>(loss, {{"reference", !in.reference.empty()}});
  tokens_rows<R>(loss, {{"tokens", !in.tokens.empty()}});
  target_row<R>(loss, !in.target.empty());
  return n_counted;
}

template <std::floating_point R, class Loss, executor E>
unpaired_metrics checked_completions(const unpaired_kernels<R, Loss>& kernels, const Loss& loss,
                                     const unpaired_batch<>& in, const unpaired_outputs<>& out,
                                     double factor, double n_counted, const class_terms& desirable,
                                     const class_terms& undesirable, E& on) {
  using sum = unpaired_sum;
  const auto sums = in_pieces(in.policy.size(), on, [&](range piece) {
    return kernels.results(loss, in, out, factor, desirable, undesirable, piece);
  });
  const double n_desirable = sums.total(sum::desirable);
  const auto of = [&](int which, double count) {
    return sum_count{.sum = sums.total(which), .count = count};
  };
  return {.loss = of(sum::loss, n_counted),
          .rewards_chosen = of(sum::chosen, n_desirable),
          .rewards_rejected = of(sum::rejected, n_counted - n_desirable),
          .logps_chosen = of(sum::logp_chosen, n_desirable),
          .logps_rejected = of(sum::logp_rejected, n_counted - n_desirable),
          .kl = {},
          .kl_unclamped = {},
          .nonfinite = {.sum = static_cast<double>(sums.nonfinite), .count = n_counted},
          .first_nonfinite = sums.first_nonfinite,
          .total = factor * of(sum::loss, n_counted).sum};
}

/// Names the points that were observed, if the loss reads any.
template <std::floating_point R, class Loss>
void report(unpaired_metrics& metrics, const Loss& loss,
            std::initializer_list<reference_point> points) {
  if (!reads_reference_point<R>(loss)) return;
  for (const reference_point& point : points) {
    if (!point.present) continue;
    metrics.kl.add(point.z);
    metrics.kl_unclamped.add(point.raw);
  }
}

/// Against a point that is given.
template <std::floating_point R, class Loss, executor E>
unpaired_metrics evaluate_completions(const unpaired_kernels<R, Loss>& kernels, const Loss& loss,
                                      const unpaired_batch<>& in, const reference_point& point,
                                      const unpaired_outputs<>& out, const normaliser& by, E& on) {
  const prospect::detail::default_float_mode mode;
  finite_point<R>(point);
  const double n_counted = check_unpaired<R>(loss, in, out, by, on);
  const class_terms terms{.z = point.z};
  unpaired_metrics metrics = checked_completions(kernels, loss, in, out, by.factor(n_counted),
                                                 n_counted, terms, terms, on);
  report<R>(metrics, loss, {point});
  prospect::detail::settle(metrics);
  return metrics;
}

/// Against the other class.
template <std::floating_point R, class Loss, executor E>
unpaired_metrics evaluate_completions(const unpaired_kernels<R, Loss>& kernels, const Loss& loss,
                                      const unpaired_batch<>& in, cross_class,
                                      const unpaired_outputs<>& out, const normaliser& by, E& on) {
  const prospect::detail::default_float_mode mode;
  const double n_counted = check_unpaired<R>(loss, in, out, by, on);
  const class_points points = class_points_of(kernels.ratios, in, on);

  // Desirable rows are measured against the undesirable ones, and so give those their d_z.
  using sum = class_sum;
  const auto d_z = in_pieces(in.policy.size(), on, [&](range piece) {
    return kernels.slopes(loss, in, points.undesirable.z, points.desirable.z, piece);
  });
  const auto attached = [](const reference_point& own, double others, double n) {
    return own.raw >= 0 && n > 0 ? others / n : 0.0;
  };
  unpaired_metrics metrics = checked_completions(
      kernels, loss, in, out, by.factor(n_counted), n_counted,
      {.z = points.undesirable.z,
       .attached = attached(points.desirable, d_z.total(sum::undesirable), points.n_desirable)},
      {.z = points.desirable.z,
       .attached = attached(points.undesirable, d_z.total(sum::desirable), points.n_undesirable)},
      on);
  report<R>(metrics, loss, {points.desirable, points.undesirable});
  prospect::detail::settle(metrics);
  return metrics;
}

/// What mismatched rows show.
template <std::floating_point R, executor E>
observation observe(const const_any_row& policy, const const_any_row& reference,
                    strided_span<const std::int32_t> tokens, E& on) {
  const prospect::detail::default_float_mode mode;
  const std::int64_t n = policy.size();
  if (n == 0) {
    reject("mismatched policy",
           "is missing: a batch without mismatched completions has rows of 0 tokens");
  }
  require_row("policy", policy, n);
  require_row("reference", reference, n);
  count_rows({{"tokens", tokens, n}}, n, on);
  const auto sums = in_pieces(
      n, on, [&](range piece) { return mismatched_ratios<R>(policy, reference, tokens, piece); });
  observation seen;
  seen.sum = sums.total(mismatched_sum::ratio);
  seen.count = sums.total(mismatched_sum::finite);
  seen.nonfinite = static_cast<double>(sums.nonfinite);
  seen.first_nonfinite = sums.first_nonfinite;
  prospect::detail::settle(seen);
  return seen;
}

}  // namespace PROSPECT_CPU_ISA
}  // namespace detail

}  // namespace prospect::inline v2::cpu
PROSPECT_STRICT_END
