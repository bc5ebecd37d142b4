// What the sequence kernel does with a completion, and with the reference points that a batch
// brings itself.
#pragma once

#include <prospect/cuda/detail/mismatched_job.cuh>
#include <prospect/losses/reads.hpp>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cuda::detail {

/// The mean of what was observed, clamped or as it is. One that is not finite spoils what depends
/// on it, because nobody could refuse it: clamping would make a 0 of -inf, and many a loss a number
/// of +inf.
template <class R>
__device__ reference_point point_from(const sum_count& seen, bool clamped = true) {
  reference_point point = reference_point::from(seen);
  if (!clamped) point.z = point.raw;
  const bool fine = is_finite(seen.sum) && is_finite(seen.count) && !(seen.count < 0) &&
                    is_finite(static_cast<R>(point.z));
  return fine ? point : reference_point{.z = no_number<double>, .raw = no_number<double>};
}

template <batch_storage S, class Loss, std::floating_point R = arithmetic_t<S>>
struct unpaired_job {
  using number = R;
  static constexpr int resident_blocks = sizeof(R) == 4 ? 2 : 1;
  enum { loss_sum, chosen, rejected, logp_chosen, logp_rejected, numbers };
  enum { counted = numbers, desirable, counts = row_sums::size - numbers };
  /// The sums of the passes before; classes over rows that are finite. Of mismatched rows and
  /// classes a batch has one.
  enum { ratio_up, ratio_down, mismatched_ratio };
  enum { all_counted = numbers, n_up, n_down, mismatched_count = n_up };
  enum { slope_up, slope_down };

  Loss loss;
  unpaired_batch<S> in;
  point_source<S> point;
  unpaired_outputs<S> out;
  denominator by;
  unpaired_metrics* metrics;
  bool reads_point = reads_reference_point<R>(loss);

  struct sample {
    bool counted = false;
    bool desirable = false;
    R weight = 1;
    R target = 0;
    completion<R> value;
    bool observed = false;  ///< a mismatched row, and its log-ratio
    R observed_ratio = 0;
  };
  /// Of an odd number of words, so that threads do not meet in a bank.
  struct slot {
    R policy, ratio, target;
    R desirable;  ///< 1 or 0
    R rest[3];    ///< the tokens, z, and nothing; then the loss and its derivatives

    PROSPECT_HD unpaired<R> value() const {
      return {.answer = {policy, ratio, rest[0]},
              .z = rest[1],
              .desirable = desirable != R(0),
              .target = target};
    }
    PROSPECT_HD void take(const unpaired_value<R>& of) {
      rest[0] = of.loss;
      rest[1] = of.d_policy;
      rest[2] = of.d_z;
    }
  };
  /// What a class is measured against, and what it adds to its coefficients because the other
  /// class's point depends on it.
  struct class_terms {
    reference_point against;
    double attached;
    R z;  ///< of `against`
  };
  struct terms {
    double factor;
    class_terms up, down;
  };
  /// What a thread's completions add up to: what is counted, in integers.
  struct tally {
    double sum[numbers] = {};
    std::int32_t count[counts] = {}, nonfinite = 0;
    std::int64_t first_nonfinite = row_sums::none;

    __device__ void increase(int which, bool by) { count[which - numbers] += by ? 1 : 0; }
    __device__ operator row_sums() const {
      row_sums sums;
#pragma unroll
      for (int k = 0; k < row_sums::size; ++k) {
        sums.sum[k] = k < numbers ? sum[k] : count[k - numbers];
      }
      sums.nonfinite = nonfinite;
      sums.first_nonfinite = first_nonfinite;
      return sums;
    }
  };

  PROSPECT_HD bool wants(int pass) const {
    if (pass == observe) {
      return point.kind == point_kind::mismatched || point.kind == point_kind::cross_class ||
             (by.counts() && !in.tokens.empty());
    }
    return pass == results || point.kind == point_kind::cross_class;
  }
  PROSPECT_HD std::int64_t rows(int pass) const {
    const std::int64_t n = in.policy.size();
    const std::int64_t mismatched = point.mismatched.policy.size();
    return pass == observe && mismatched > n ? mismatched : n;
  }

  __device__ terms begin(const pass_totals& totals) const {
    const row_sums& seen = totals.of[observe];
    const row_sums& slopes = totals.of[attach];
    const double n =
        in.tokens.empty() ? static_cast<double>(in.policy.size()) : seen.sum[all_counted];
    terms t{.factor = by.factor(n), .up = {point.given, 0, 0}, .down = {point.given, 0, 0}};
    if (point.kind == point_kind::observed || point.kind == point_kind::mean_observed) {
      t.up.against = t.down.against =
          point_from<R>(*point.observed, point.kind == point_kind::observed);
    } else if (point.kind == point_kind::mismatched) {
      t.up.against = t.down.against =
          point_from<R>({.sum = seen.sum[mismatched_ratio], .count = seen.sum[mismatched_count]});
    } else if (point.kind == point_kind::cross_class) {
      // Each class is measured against the other, and gets the other's slopes in return.
      const auto mean = [&](int sum, int count) {
        return point_from<R>({.sum = seen.sum[sum], .count = seen.sum[count]});
      };
      const auto attached = [&](const reference_point& own, int count, int slope) {
        const double rows = seen.sum[count];
        return own.raw >= 0 && rows > 0 ? slopes.sum[slope] / rows : 0.0;
      };
      t.up.against = mean(ratio_down, n_down);
      t.down.against = mean(ratio_up, n_up);
      t.up.attached = attached(t.down.against, n_up, slope_down);
      t.down.attached = attached(t.up.against, n_down, slope_up);
    }
    t.up.z = static_cast<R>(t.up.against.z);
    t.down.z = static_cast<R>(t.down.against.z);
    return t;
  }

  __device__ sample load(int pass, std::int64_t i) const {
    sample s;
    if (i < in.policy.size()) {
      const std::int32_t tokens = read_or(in.tokens, i, 1);
      s.counted = tokens > 0;
      if (s.counted && (pass != observe || point.kind == point_kind::cross_class)) {
        s.desirable = read(&in.desirable[i]) != 0;
        s.value = read_completion<R>(in.policy, in.reference, i, static_cast<R>(tokens));
        s.weight = read_or(in.weight, i, R(1));
        s.target = read_or(in.target, i, R(0));
      }
    }
    if (pass == observe && i < point.mismatched.policy.size()) {
      s.observed = read_or(point.mismatched.tokens, i, 1) > 0;
      if (s.observed) {
        s.observed_ratio =
            read_as<R>(point.mismatched.policy, i) - read_as<R>(point.mismatched.reference, i);
      }
    }
    return s;
  }

  __device__ void add(int pass, std::int64_t i, const sample& s, const terms& t,
                      tally& sums) const {
    if (pass == observe) return look_at(i, s, sums);
    write(pass, i, s, differentiate(loss, measured(s, t)), t, sums);
  }

  /// Whether completions lie in fours.
  PROSPECT_INLINE bool in_fours() const
    requires(!std::same_as<S, mixed>)
  {
    const auto lie = [](const auto&... row) { return (... && detail::in_fours(row)); };
    return lie(in.policy, in.reference, in.desirable, in.tokens, in.weight, in.target, out.loss,
               out.d_policy, out.reward);
  }
  /// Completions i to i + 3: the same results, and the same sums in the same order. What is done
  /// with before their losses begin holds no registers while they are worked out.
  __device__ void add_four(std::int64_t i, const terms& t, tally& sums) const {
    if (in.weight.empty() && in.target.empty()) {
      add_four<true>(i, t, sums);
    } else {
      add_four<false>(i, t, sums);
    }
  }
  template <bool plain>
  __device__ void add_four(std::int64_t i, const terms& t, tally& sums) const {
    R policy[four], reference[four] = {};
    std::uint8_t thumbs[four];
    std::int32_t tokens[four] = {1, 1, 1, 1};
    read_four(in.policy, i, policy);
    if (!in.reference.empty()) read_four(in.reference, i, reference);
    read_four(in.desirable, i, thumbs);
    if (!in.tokens.empty()) read_four(in.tokens, i, tokens);
    sample s[four];
#pragma unroll
    for (int k = 0; k < four; ++k) {
      s[k].counted = tokens[k] > 0;
      s[k].desirable = thumbs[k] != 0;
      // Without a reference, nothing is taken off: exactly what the policy is.
      s[k].value = {policy[k], policy[k] - reference[k], static_cast<R>(tokens[k])};
      if (s[k].counted) {
        sums.increase(counted, true);
        sums.increase(desirable, s[k].desirable);
        take_in(s[k], sums);
      } else {
        s[k].value = {};
      }
    }
    if (!out.reward.empty()) {
      R rewards[four];
#pragma unroll
      for (int k = 0; k < four; ++k) {
        rewards[k] = s[k].counted ? static_cast<R>(reward(s[k])) : R(0);
      }
      put_four(out.reward, i, rewards);
    }
    R loss_out[four], d_policy[four];
    finite_probe<R> probe[four];
#pragma unroll
    for (int k = 0; k < four; ++k) {
      if (!plain && s[k].counted) {
        s[k].weight = read_or(in.weight, i + k, R(1));
        s[k].target = read_or(in.target, i + k, R(0));
      }
      unpaired_value<R> value = differentiate(loss, measured(s[k], t));
      if (!s[k].counted) value = {};
      conclude<plain>(s[k], t, value, sums, probe[k]);
      if (!s[k].counted) value.d_policy = 0;  // and not what is attached
      probe[k].look_at(loss_out[k] = as_stored(out.loss, value.loss));
      probe[k].look_at(d_policy[k] = as_stored(out.d_policy, value.d_policy));
    }
    put_four(out.loss, i, loss_out);
    put_four(out.d_policy, i, d_policy);
    note_nonfinite(sums, i, probe);
  }

  __device__ slot prepare(int pass, std::int64_t i, const terms& t) const {
    const unpaired<R> x = measured(load(pass, i), t);
    return {x.answer.policy,
            x.answer.ratio,
            x.target,
            x.desirable ? R(1) : R(0),
            {x.answer.tokens, x.z, 0}};
  }
  __device__ void add(int pass, std::int64_t i, const slot& from, const terms& t,
                      tally& sums) const {
    if (pass == observe) return look_at(i, load(pass, i), sums);
    sample s;
    s.counted = read_or(in.tokens, i, 1) > 0;
    if (s.counted) s.weight = read_or(in.weight, i, R(1));
    s.desirable = from.desirable != R(0);
    s.value = {.policy = from.policy, .ratio = from.ratio, .tokens = 0};
    s.target = from.target;
    write(pass, i, s, {from.rest[0], from.rest[1], from.rest[2]}, t, sums);
  }

  __device__ void finish(const pass_totals& totals, const terms& t) const {
    const row_sums& seen = totals.of[observe];
    if (point.mismatched.observed != nullptr) {
      *point.mismatched.observed = observation_of(seen, mismatched_ratio, mismatched_count);
    }
    if (metrics == nullptr) return;
    const row_sums& sums = totals.of[results];
    const double n = sums.sum[counted];
    const double n_desirable = sums.sum[desirable];
    const auto of = [&](int which, double count) {
      return sum_count{.sum = sums.sum[which], .count = count};
    };
    unpaired_metrics m{.loss = of(loss_sum, n),
                       .rewards_chosen = of(chosen, n_desirable),
                       .rewards_rejected = of(rejected, n - n_desirable),
                       .logps_chosen = of(logp_chosen, n_desirable),
                       .logps_rejected = of(logp_rejected, n - n_desirable),
                       .kl = {},
                       .kl_unclamped = {},
                       .nonfinite = {.sum = sums.nonfinite, .count = n},
                       .first_nonfinite = index_or_none(sums.first_nonfinite),
                       .total = t.factor * sums.sum[loss_sum]};
    const auto report = [&](const reference_point& z) {
      if (!reads_point || !z.present) return;
      m.kl.add(z.z);
      m.kl_unclamped.add(z.raw);
    };
    if (point.kind != point_kind::cross_class) {
      report(t.up.against);
    } else {
      report(t.down.against);
      report(t.up.against);
    }
    *metrics = m;
  }

 private:
  /// A row that is not finite spoils its own results, which are reported, and not those of the
  /// other class.
  __device__ static bool in_class(const sample& s) {
    return s.counted && is_finite(s.value.policy) && is_finite(s.value.ratio);
  }
  /// What the loss takes of a row.
  __device__ static unpaired<R> measured(const sample& s, const terms& t) {
    // Chosen number by number: a choice between the two structs would put them into memory.
    return {.answer = s.value,
            .z = s.desirable ? t.up.z : t.down.z,
            .desirable = s.desirable,
            .target = s.target};
  }
  /// What a row adds to what has to be known first.
  __device__ void look_at(std::int64_t i, const sample& s, tally& sums) const {
    const bool observed = s.observed && is_finite(s.observed_ratio);
    sums.increase(all_counted, s.counted);
    sums.sum[mismatched_ratio] += observed ? static_cast<double>(s.observed_ratio) : 0;
    sums.increase(mismatched_count, observed);
    if (s.observed && !observed) note_nonfinite(sums, i);
    if (in_class(s) && point.kind == point_kind::cross_class) {
      const double ratio = static_cast<double>(s.value.ratio);
      sums.increase(n_up, s.desirable);
      sums.increase(n_down, !s.desirable);
      sums.sum[ratio_up] += s.desirable ? ratio : 0;
      sums.sum[ratio_down] += s.desirable ? 0 : ratio;
    }
  }
  /// What a counted row adds to the slopes.
  __device__ void add_slope(const sample& s, const unpaired_value<R>& value, tally& sums) const {
    const R d_z = in.weight.empty() ? value.d_z : weighted(s.weight, value.d_z);
    const double slope = in_class(s) && is_finite(d_z) ? static_cast<double>(d_z) : 0;
    sums.sum[slope_up] += s.desirable ? slope : 0;
    sums.sum[slope_down] += s.desirable ? 0 : slope;
  }
  /// What a counted row adds to the sums whatever its loss.
  __device__ void take_in(const sample& s, tally& sums) const {
    const double policy = static_cast<double>(s.value.policy);
    if (s.desirable) {
      sums.sum[chosen] += reward(s);
      sums.sum[logp_chosen] += policy;
    } else {
      sums.sum[rejected] += reward(s);
      sums.sum[logp_rejected] += policy;
    }
  }
  __device__ double reward(const sample& s) const {
    return reward_scale(loss) * static_cast<double>(s.value.ratio);
  }
  /// Looks at what a counted row has, weighs its loss and makes a coefficient of its derivative.
  template <bool plain>
  __device__ void conclude(const sample& s, const terms& t, unpaired_value<R>& value, tally& sums,
                           finite_probe<R>& probe) const {
    probe.look_at(s.value);
    if (!plain && !in.target.empty()) probe.look_at(s.target);
    if (!plain && !in.weight.empty()) {
      probe.look_at(s.weight);
      value.loss = weighted(s.weight, value.loss);
      value.d_policy = weighted(s.weight, value.d_policy);
    }
    sums.sum[loss_sum] += static_cast<double>(value.loss);
    const double attached = s.desirable ? t.up.attached : t.down.attached;
    value.d_policy = static_cast<R>(t.factor * (static_cast<double>(value.d_policy) + attached));
  }
  __device__ void write(int pass, std::int64_t i, const sample& s, unpaired_value<R> value,
                        const terms& t, tally& sums) const {
    if (pass == attach) {
      if (s.counted) add_slope(s, value, sums);
      return;
    }
    R reward_out = 0;
    finite_probe<R> probe;
    if (s.counted) {
      sums.increase(counted, true);
      sums.increase(desirable, s.desirable);
      take_in(s, sums);
      conclude<false>(s, t, value, sums, probe);
      reward_out = static_cast<R>(reward(s));
    } else {
      value = {};
    }
    probe.look_at(put(out.loss, i, value.loss));
    probe.look_at(put(out.d_policy, i, value.d_policy));
    put(out.reward, i, reward_out);
    if (!probe.finite()) note_nonfinite(sums, i);
  }
};

}  // namespace prospect::inline v2::cuda::detail
PROSPECT_STRICT_END
