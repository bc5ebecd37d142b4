// What the sequence kernel does with a pair: how it is read, what it adds to the sums of a pass,
// what is written for it.
#pragma once

#include <prospect/cuda/detail/named_pairs.cuh>
#include <prospect/cuda/detail/samples.cuh>
#include <prospect/losses/parts/next_token.hpp>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cuda::detail {

/// One of several losses, of which those of scores are for a kernel of their own.
template <class L>
concept has_scores_apart = requires(const L& loss) { loss.of_scores(); };

template <batch_storage S, class Loss, std::floating_point R = arithmetic_t<S>>
struct paired_job {
  using number = R;
  /// As many as registers, though not every device's shared memory, have room for: several losses
  /// of scores take more than two leave to each.
  static constexpr int resident_blocks =
      sizeof(R) == 4 && (has_scores_apart<Loss> || !one_of_several<Loss>) ? 2 : 1;
  static constexpr bool any = std::same_as<S, mixed>;
  enum { loss_sum, chosen, rejected, accurate, logp_chosen, logp_rejected, counted };
  enum { tokens = counted + 1 };  ///< of the pass that observes

  Loss loss;
  paired_batch<S> in;
  paired_outputs<S> out;
  denominator by;
  paired_metrics* metrics;
  named_pairs among{};  ///< for a batch of any rows

  struct sample {
    bool counted = false;
    R weight = 1;
    pair<R> value;
  };
  /// Of an odd number of words, so that threads do not meet in a bank.
  struct slot {
    R policy[2], ratio[2];
    R rest[3];  ///< the tokens of both sides, and the margin; then the loss and its derivatives

    PROSPECT_HD pair<R> value() const {
      return {.chosen = {policy[0], ratio[0], rest[0]},
              .rejected = {policy[1], ratio[1], rest[1]},
              .margin = rest[2]};
    }
    PROSPECT_HD void take(const paired_value<R>& of) {
      rest[0] = of.loss;
      rest[1] = of.d_chosen;
      rest[2] = of.d_rejected;
    }
  };
  struct terms {
    double factor;
    R slope;  ///< what a nat of the next-token term adds to the loss of a pair
  };
  /// What a thread's pairs add up to: what is counted, in integers.
  struct tally {
    double loss_sum = 0, chosen = 0, rejected = 0, logp_chosen = 0, logp_rejected = 0, tokens = 0;
    std::int32_t accurate = 0, counted = 0, nonfinite = 0;
    std::int64_t first_nonfinite = row_sums::none;

    __device__ operator row_sums() const {
      row_sums sums;
      sums.sum[paired_job::loss_sum] = loss_sum;
      sums.sum[paired_job::chosen] = chosen;
      sums.sum[paired_job::rejected] = rejected;
      sums.sum[paired_job::accurate] = accurate;
      sums.sum[paired_job::logp_chosen] = logp_chosen;
      sums.sum[paired_job::logp_rejected] = logp_rejected;
      sums.sum[paired_job::counted] = counted;
      sums.sum[paired_job::tokens] = tokens;
      sums.nonfinite = nonfinite;
      sums.first_nonfinite = first_nonfinite;
      return sums;
    }
  };

  PROSPECT_HD bool tokens_given() const {
    return !in.chosen_tokens.empty() || !in.rejected_tokens.empty();
  }
  PROSPECT_HD std::int64_t pairs() const {
    return any && among.given() ? among.pairs : in.policy_chosen.size();
  }
  PROSPECT_HD bool counts_tokens() const {
    return next_token_of(loss).weight != 0 && by.counts_tokens();
  }
  PROSPECT_HD bool wants(int pass) const {
    return pass == results || (pass == observe && ((by.counts() && tokens_given()) ||
                                                   counts_tokens() || (any && among.scatters())));
  }
  PROSPECT_HD std::int64_t rows(int pass) const {
    const std::int64_t n = pairs();
    return any && pass == results && among.scatters() && among.sequences > n ? among.sequences : n;
  }
  /// Where the sides of pair i are.
  __device__ std::int64_t chosen_of(std::int64_t i) const {
    return any && among.given() ? among.which.chosen[i] : i;
  }
  __device__ std::int64_t rejected_of(std::int64_t i) const {
    return any && among.given() ? among.which.rejected[i] : i;
  }
  /// Whether that is in the batch.
  __device__ bool inside(std::int64_t at) const {
    return !any || !among.given() || (at >= 0 && at < among.sequences);
  }
  /// Where the third completion of pair i is.
  __device__ std::int64_t third_of(std::int64_t i) const {
    return any && among.given() ? among.which.third[i] : i;
  }
  /// Its tokens: 0 where there is none, and 1 where nobody counts them.
  __device__ std::int32_t third_tokens(std::int64_t at) const {
    return in.policy_third.empty() ? 0 : read_or(in.third_tokens, at, 1);
  }

  __device__ terms begin(const pass_totals& totals) const {
    const double n =
        tokens_given() ? totals.of[observe].sum[counted] : static_cast<double>(pairs());
    terms t{by.factor(n), 0};
    if constexpr (next_token_loss<Loss>) {
      const double weight = next_token_of(loss).weight;
      if (weight != 0) {
        t.slope = static_cast<R>(weight * by.token_share(n, totals.of[observe].sum[tokens]));
      }
    }
    return t;
  }
  /// A pair without its log-probabilities.
  __device__ sample outline(int pass, std::int64_t i) const {
    sample s;
    if (any && i >= pairs()) return s;
    const std::int64_t chosen_at = chosen_of(i), rejected_at = rejected_of(i);
    if (!inside(chosen_at) || !inside(rejected_at)) {
      s.counted = true;
      s.value.chosen = s.value.rejected = {no_number<R>, no_number<R>, R(1)};
      return s;
    }
    const std::int32_t chosen_tokens = read_or(in.chosen_tokens, chosen_at, 1);
    const std::int32_t rejected_tokens = read_or(in.rejected_tokens, rejected_at, 1);
    s.counted = chosen_tokens > 0 && rejected_tokens > 0;
    s.value.chosen.tokens = static_cast<R>(chosen_tokens);
    s.value.rejected.tokens = static_cast<R>(rejected_tokens);
    if (s.counted && pass == results) {
      s.value.margin = read_or(in.margin, i, R(0));
      s.weight = read_or(in.weight, i, R(1));
    }
    return s;
  }
  __device__ sample load(int pass, std::int64_t i) const {
    sample s = outline(pass, i);
    if (!s.counted || pass != results) return s;
    const std::int64_t chosen_at = chosen_of(i), rejected_at = rejected_of(i);
    if (!inside(chosen_at) || !inside(rejected_at)) return s;
    completion<R>& w = s.value.chosen;
    completion<R>& l = s.value.rejected;
    w = read_completion<R>(in.policy_chosen, in.reference_chosen, chosen_at, w.tokens);
    l = read_completion<R>(in.policy_rejected, in.reference_rejected, rejected_at, l.tokens);
    return s;
  }
  __device__ void add(int pass, std::int64_t i, const sample& s, const terms& t,
                      tally& sums) const {
    if (pass == observe) return look_at(i, s, sums);
    write(i, s, differentiate(loss, s.value), t, sums);
  }

  /// Whether pairs lie in fours. Losses with a next-token term take one at a time.
  PROSPECT_INLINE bool in_fours() const
    requires(!any && !next_token_loss<Loss>)
  {
    const auto lie = [](const auto&... row) { return (... && detail::in_fours(row)); };
    return lie(in.policy_chosen, in.policy_rejected, in.reference_chosen, in.reference_rejected,
               in.chosen_tokens, in.rejected_tokens, in.weight, in.margin, out.loss,
               out.d_policy_chosen, out.d_policy_rejected, out.reward_chosen, out.reward_rejected);
  }
  /// Pairs i to i + 3: the same results, and the same sums in the same order. What is done with
  /// before their losses begin holds no registers while they are worked out.
  __device__ void add_four(std::int64_t i, const terms& t, tally& sums) const {
    if (in.margin.empty() && in.weight.empty()) {
      add_four<true>(i, t, sums);
    } else {
      add_four<false>(i, t, sums);
    }
  }
  template <bool plain>
  __device__ void add_four(std::int64_t i, const terms& t, tally& sums) const {
    sample s[four];
    read_sides(i, in.policy_chosen, in.reference_chosen, in.chosen_tokens, s, &pair<R>::chosen);
    read_sides(i, in.policy_rejected, in.reference_rejected, in.rejected_tokens, s,
               &pair<R>::rejected);
#pragma unroll
    for (int k = 0; k < four; ++k) {
      pair<R>& p = s[k].value;
      s[k].counted = p.chosen.tokens > R(0) && p.rejected.tokens > R(0);
      if (s[k].counted) {
        sums.counted += 1;
        take_in(p, sums);
      } else {
        p = {};
      }
    }
    put_rewards(i, out.reward_chosen, s, &pair<R>::chosen);
    put_rewards(i, out.reward_rejected, s, &pair<R>::rejected);
    R loss_out[four], d_chosen[four], d_rejected[four];
    finite_probe<R> probe[four];
#pragma unroll
    for (int k = 0; k < four; ++k) {
      if (!plain && s[k].counted) {
        if (!in.margin.empty()) s[k].value.margin = read_as<R>(in.margin.data() + i + k);
        if (!in.weight.empty()) s[k].weight = read_as<R>(in.weight.data() + i + k);
      }
      paired_value<R> value = differentiate(loss, s[k].value);
      if (!s[k].counted) value = {};
      conclude<plain>(s[k], t, value, sums, probe[k]);
      probe[k].look_at(loss_out[k] = as_stored(out.loss, value.loss));
      probe[k].look_at(d_chosen[k] = as_stored(out.d_policy_chosen, value.d_chosen));
      probe[k].look_at(d_rejected[k] = as_stored(out.d_policy_rejected, value.d_rejected));
    }
    put_four(out.loss, i, loss_out);
    put_four(out.d_policy_chosen, i, d_chosen);
    put_four(out.d_policy_rejected, i, d_rejected);
    note_nonfinite(sums, i, probe);
  }

  __device__ slot prepare(int pass, std::int64_t i, const terms&) const {
    const pair<R> p = load(pass, i).value;
    return {{p.chosen.policy, p.rejected.policy},
            {p.chosen.ratio, p.rejected.ratio},
            {p.chosen.tokens, p.rejected.tokens, p.margin}};
  }
  /// Of what a slot does not hold any more, what is needed is read again.
  __device__ void add(int pass, std::int64_t i, const slot& from, const terms& t,
                      tally& sums) const {
    sample s = outline(pass, i);
    if (pass == observe) return look_at(i, s, sums);
    s.value.chosen.policy = from.policy[0];
    s.value.rejected.policy = from.policy[1];
    s.value.chosen.ratio = from.ratio[0];
    s.value.rejected.ratio = from.ratio[1];
    write(i, s, {from.rest[0], from.rest[1], from.rest[2]}, t, sums);
  }

  __device__ void finish(const pass_totals& totals, const terms& t) const {
    if (metrics == nullptr) return;
    const row_sums& sums = totals.of[results];
    const double n = sums.sum[counted];
    const auto of = [&](int which) { return sum_count{.sum = sums.sum[which], .count = n}; };
    *metrics = {.loss = of(loss_sum),
                .rewards_chosen = of(chosen),
                .rewards_rejected = of(rejected),
                .rewards_margins = {.sum = sums.sum[chosen] - sums.sum[rejected], .count = n},
                .rewards_accuracies = of(accurate),
                .logps_chosen = of(logp_chosen),
                .logps_rejected = of(logp_rejected),
                .nonfinite = {.sum = sums.nonfinite, .count = n},
                .first_nonfinite = index_or_none(sums.first_nonfinite),
                .total = t.factor * sums.sum[loss_sum]};
  }

 private:
  /// What a pair adds to the counts.
  __device__ void look_at(std::int64_t i, const sample& s, tally& sums) const {
    sums.counted += s.counted ? 1 : 0;
    if (s.counted && counts_tokens()) sums.tokens += scored(i);
    if (any && among.scatters()) among.count(i);
  }
  /// What a counted pair adds to the sums whatever its loss.
  __device__ void take_in(const pair<R>& p, tally& sums) const {
    const double up = reward(p.chosen), down = reward(p.rejected);
    sums.chosen += up;
    sums.rejected += down;
    sums.accurate += up > down ? 1 : 0;
    sums.logp_chosen += static_cast<double>(p.chosen.policy);
    sums.logp_rejected += static_cast<double>(p.rejected.policy);
  }
  __device__ double reward(const completion<R>& c) const {
    return reward_scale(loss) * static_cast<double>(c.ratio);
  }
  /// Looks at what a counted pair has, weighs its loss and makes coefficients of its derivatives.
  template <bool plain>
  __device__ void conclude(const sample& s, const terms& t, paired_value<R>& value, tally& sums,
                           finite_probe<R>& probe) const {
    probe.look_at(s.value.chosen);
    probe.look_at(s.value.rejected);
    if (!plain && !in.margin.empty()) probe.look_at(s.value.margin);
    if (!plain && !in.weight.empty()) {
      probe.look_at(s.weight);
      value = {weighted(s.weight, value.loss), weighted(s.weight, value.d_chosen),
               weighted(s.weight, value.d_rejected)};
    }
    sums.loss_sum += static_cast<double>(value.loss);
    value.d_chosen = by_factor(t, value.d_chosen);
    value.d_rejected = by_factor(t, value.d_rejected);
  }
  __device__ static R by_factor(const terms& t, R d) {
    return static_cast<R>(t.factor * static_cast<double>(d));
  }
  /// What a pair adds to the results, and its own.
  __device__ void write(std::int64_t i, const sample& s, paired_value<R> value, const terms& t,
                        tally& sums) const {
    [[maybe_unused]] R d_third = 0;
    R reward_chosen = 0, reward_rejected = 0;
    finite_probe<R> probe;
    if (s.counted) {
      sums.counted += 1;
      take_in(s.value, sums);
      if constexpr (next_token_loss<Loss>) {
        d_third = add_next_tokens(i, s, t, value, probe);
        d_third = by_factor(t, in.weight.empty() ? d_third : weighted(s.weight, d_third));
      }
      conclude<false>(s, t, value, sums, probe);
      reward_chosen = static_cast<R>(reward(s.value.chosen));
      reward_rejected = static_cast<R>(reward(s.value.rejected));
    } else {
      value = {};
    }
    if (!any || i < pairs()) {
      probe.look_at(put(out.loss, i, value.loss));
      probe.look_at(put(out.d_policy_chosen, i, value.d_chosen));
      probe.look_at(put(out.d_policy_rejected, i, value.d_rejected));
      put(out.reward_chosen, i, reward_chosen);
      put(out.reward_rejected, i, reward_rejected);
      if constexpr (next_token_loss<Loss>) probe.look_at(put(out.d_policy_third, i, d_third));
    }
    if (any && among.scatters()) {
      among.scatter(i, value.d_chosen, value.d_rejected, d_third, probe);
    }
    if (!probe.finite()) note_nonfinite(sums, i);
  }
  /// One side of four pairs.
  __device__ static void read_sides(std::int64_t i, const input_row<S>& policy,
                                    const input_row<S>& reference,
                                    const strided_span<const std::int32_t>& tokens,
                                    sample (&s)[four], completion<R> pair<R>::*side) {
    R p[four], r[four] = {};
    std::int32_t n[four] = {1, 1, 1, 1};
    read_four(policy, i, p);
    if (!reference.empty()) read_four(reference, i, r);
    if (!tokens.empty()) read_four(tokens, i, n);
#pragma unroll
    for (int k = 0; k < four; ++k) {
      // Without a reference, nothing is taken off: exactly what the policy is.
      (s[k].value.*side) = {p[k], p[k] - r[k], static_cast<R>(n[k])};
    }
  }
  __device__ void put_rewards(std::int64_t i, const result_row<S>& row, const sample (&s)[four],
                              completion<R> pair<R>::*side) const {
    if (row.empty()) return;
    R x[four];
#pragma unroll
    for (int k = 0; k < four; ++k) {
      x[k] = s[k].counted ? static_cast<R>(reward(s[k].value.*side)) : R(0);
    }
    put_four(row, i, x);
  }
  /// How many tokens the next-token term of a counted pair is over; 1 of a sequence that there is
  /// not, so that it shows.
  __device__ double scored(std::int64_t i) const {
    const std::int64_t chosen_at = chosen_of(i);
    const bool whole = inside(chosen_at) && inside(rejected_of(i));
    double n = 0;
    if (next_token_of(loss).chosen) n = whole ? read_or(in.chosen_tokens, chosen_at, 1) : 1;
    if (in.policy_third.empty()) return n;
    const std::int64_t at = third_of(i);
    const std::int32_t more = inside(at) ? third_tokens(at) : 1;
    return more > 0 ? n + more : n;
  }
  /// Adds the next-token term of a counted pair, and gives its coefficient of the third completion.
  __device__ R add_next_tokens(std::int64_t i, const sample& s, const terms& t,
                               paired_value<R>& value, finite_probe<R>& probe) const {
    if (t.slope == R(0)) return 0;
    R log_prob = 0, d_third = 0;
    if (next_token_of(loss).chosen) {
      log_prob = s.value.chosen.policy;
      value.d_chosen -= t.slope;
    }
    if (!in.policy_third.empty()) {
      const std::int64_t at = third_of(i);
      const bool there = inside(at);
      if (!there || third_tokens(at) > 0) {
        const R third = there ? read_as<R>(in.policy_third, at) : no_number<R>;
        probe.look_at(third);
        log_prob += third;
        d_third = there ? -t.slope : no_number<R>;
      }
    }
    value.loss -= t.slope * log_prob;
    return d_third;
  }
};

/// Runs a job of pairs: of several losses those of scores have a kernel of their own.
template <batch_storage S, class Loss, class R>
static cudaError_t run_pairs(const paired_job<S, Loss, R>& job, scratch space,
                             cudaStream_t stream) {
  if constexpr (has_scores_apart<Loss>) {
    if (!job.loss.score.is_identity()) {
      const auto loss = job.loss.of_scores();
      return run(
          paired_job<S, std::remove_const_t<decltype(loss)>, R>{loss, job.in, job.out, job.by,
                                                                job.metrics, job.among},
          space, stream);
    }
  }
  return run(job, space, stream);
}

}  // namespace prospect::inline v2::cuda::detail
PROSPECT_STRICT_END
