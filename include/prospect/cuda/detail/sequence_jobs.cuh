// What the sequence kernel does with a row of each kind of batch: how a sample is read, what it
// adds to the sums of a pass, what is written for it. The arithmetic is that of cpu/sequences.hpp,
// step by step: samples and losses in the type of arithmetic, everything after them in fp64.
#pragma once

#include <prospect/cuda/batch.hpp>
#include <prospect/cuda/detail/sequence_kernels.cuh>
#include <prospect/losses/differentiate.hpp>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v1::cuda::detail {

/// Inputs are not written while the kernel runs.
__device__ inline float read(const float* x) { return __ldg(x); }
__device__ inline double read(const double* x) { return __ldg(x); }
__device__ inline std::int32_t read(const std::int32_t* x) { return __ldg(x); }
__device__ inline std::uint8_t read(const std::uint8_t* x) { return __ldg(x); }
__device__ inline float read(const bfloat16* x) {
  const std::uint16_t bits = __ldg(&x->bits);
  return load(__builtin_bit_cast(bfloat16, bits));
}
__device__ inline float read(const float16* x) {
  const std::uint16_t bits = __ldg(&x->bits);
  return load(__builtin_bit_cast(float16, bits));
}
template <class T>
__device__ auto read(strided_span<const T> row, std::int64_t i) {
  return read(&row[i]);
}
template <class T, class R>
__device__ R read_or(strided_span<const T> row, std::int64_t i, R otherwise) {
  return row.empty() ? otherwise : static_cast<R>(read(row, i));
}

template <storage S>
__device__ void put(strided_span<S> row, std::int64_t i, S x) {
  if (!row.empty()) row[i] = x;
}

/// x as it will be read back.
template <storage S>
__device__ S rounded(double x) {
  return store<S>(static_cast<compute_t<S>>(x));
}
template <class R>
__device__ bool finite(R x) {
  return x - x == R(0);
}
template <storage S>
__device__ bool stays_finite(S x) {
  return finite(load(x));
}

/// A completion as losses see it. Without a reference its log-ratio was found unread, and is 0.
template <storage S>
__device__ completion<compute_t<S>> read_completion(strided_span<const S> policy,
                                                    strided_span<const S> reference, std::int64_t i,
                                                    std::int32_t tokens) {
  using R = compute_t<S>;
  const R p = read(policy, i);
  const R ratio = reference.empty() ? R(0) : p - read(reference, i);
  return {.policy = p, .ratio = ratio, .tokens = static_cast<R>(tokens)};
}

__device__ inline std::int64_t index_or_none(std::int64_t first) {
  return first == row_sums::none ? -1 : first;
}

template <storage S, class Loss>
struct paired_job {
  using R = compute_t<S>;
  enum { loss_sum, chosen, rejected, margin, accurate, logp_chosen, logp_rejected, counted };

  Loss loss;
  paired_batch<S> in;
  paired_outputs<S> out;
  denominator by;
  paired_metrics* metrics;

  struct sample {
    bool counted = false;
    pair<R> value;
  };
  struct terms {
    double factor;
  };

  PROSPECT_HD bool tokens_given() const {
    return !in.chosen_tokens.empty() || !in.rejected_tokens.empty();
  }
  PROSPECT_HD bool wants(int pass) const {
    return pass == results || (pass == observe && by.counts() && tokens_given());
  }
  PROSPECT_HD std::int64_t rows(int) const { return in.policy_chosen.size(); }

  __device__ terms begin(const pass_totals& totals) const {
    const double n =
        tokens_given() ? totals.of[observe].sum[counted] : static_cast<double>(rows(results));
    return {by.factor(n)};
  }
  __device__ sample load(int pass, std::int64_t i) const {
    const std::int32_t chosen_tokens = read_or(in.chosen_tokens, i, 1);
    const std::int32_t rejected_tokens = read_or(in.rejected_tokens, i, 1);
    sample s;
    s.counted = chosen_tokens > 0 && rejected_tokens > 0;
    if (s.counted && pass == results) {
      s.value = {read_completion(in.policy_chosen, in.reference_chosen, i, chosen_tokens),
                 read_completion(in.policy_rejected, in.reference_rejected, i, rejected_tokens)};
    }
    return s;
  }
  __device__ void add(int pass, std::int64_t i, const sample& s, const terms& t,
                      row_sums& sums) const {
    if (pass == observe) {
      sums.sum[counted] += s.counted ? 1 : 0;
      return;
    }
    S loss_out = store<S>(R(0)), d_chosen = loss_out, d_rejected = loss_out;
    S reward_chosen = loss_out, reward_rejected = loss_out;
    if (s.counted) {
      const auto value = differentiate(loss, s.value);
      const completion<R>& w = s.value.chosen;
      const completion<R>& l = s.value.rejected;
      const double scale = reward_scale(loss);
      const double up = scale * static_cast<double>(w.ratio);
      const double down = scale * static_cast<double>(l.ratio);
      loss_out = rounded<S>(static_cast<double>(value.loss));
      d_chosen = rounded<S>(t.factor * static_cast<double>(value.d_chosen));
      d_rejected = rounded<S>(t.factor * static_cast<double>(value.d_rejected));
      reward_chosen = rounded<S>(up);
      reward_rejected = rounded<S>(down);
      sums.sum[loss_sum] += static_cast<double>(value.loss);
      sums.sum[chosen] += up;
      sums.sum[rejected] += down;
      sums.sum[margin] += up - down;
      sums.sum[accurate] += up > down ? 1 : 0;
      sums.sum[logp_chosen] += static_cast<double>(w.policy);
      sums.sum[logp_rejected] += static_cast<double>(l.policy);
      sums.sum[counted] += 1;
      const bool fine = finite(w.policy) && finite(w.ratio) && finite(l.policy) &&
                        finite(l.ratio) && stays_finite(loss_out) && stays_finite(d_chosen) &&
                        stays_finite(d_rejected);
      if (!fine) {
        sums.nonfinite += 1;
        if (i < sums.first_nonfinite) sums.first_nonfinite = i;
      }
    }
    put(out.loss, i, loss_out);
    put(out.d_policy_chosen, i, d_chosen);
    put(out.d_policy_rejected, i, d_rejected);
    put(out.reward_chosen, i, reward_chosen);
    put(out.reward_rejected, i, reward_rejected);
  }
  __device__ void finish(const pass_totals& totals, const terms& t) const {
    if (metrics == nullptr) return;
    const row_sums& sums = totals.of[results];
    const double n = sums.sum[counted];
    const auto of = [&](int which) { return sum_count{.sum = sums.sum[which], .count = n}; };
    *metrics = {.loss = of(loss_sum),
                .rewards_chosen = of(chosen),
                .rewards_rejected = of(rejected),
                .rewards_margins = of(margin),
                .rewards_accuracies = of(accurate),
                .logps_chosen = of(logp_chosen),
                .logps_rejected = of(logp_rejected),
                .nonfinite = {.sum = sums.nonfinite, .count = n},
                .first_nonfinite = index_or_none(sums.first_nonfinite),
                .total = t.factor * sums.sum[loss_sum]};
  }
};

template <storage S, class Loss>
struct unpaired_job {
  using R = compute_t<S>;
  enum { counted, desirable, loss_sum, chosen, rejected, logp_chosen, logp_rejected };
  /// The sums of the passes before; classes over rows that are finite.
  enum { all_counted, mismatched_ratio, mismatched_count, n_up, n_down, ratio_up, ratio_down };
  enum { slope_up, slope_down };

  Loss loss;
  unpaired_batch<S> in;
  point_source<S> point;
  unpaired_outputs<S> out;
  denominator by;
  unpaired_metrics* metrics;

  struct sample {
    bool counted = false;
    bool desirable = false;
    completion<R> value;
    bool observed = false;  ///< a mismatched row, and its log-ratio
    R observed_ratio = 0;
  };
  /// What a class is measured against, and what it adds to its coefficients because the other
  /// class's point depends on it.
  struct class_terms {
    reference_point against;
    double attached;
  };
  struct terms {
    double factor;
    class_terms up, down;
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
    terms t{.factor = by.factor(n), .up = {point.given, 0}, .down = {point.given, 0}};
    if (point.kind == point_kind::observed) {
      t.up.against = t.down.against = reference_point::from(*point.observed);
    } else if (point.kind == point_kind::mismatched) {
      t.up.against = t.down.against = reference_point::from(
          {.sum = seen.sum[mismatched_ratio], .count = seen.sum[mismatched_count]});
    } else if (point.kind == point_kind::cross_class) {
      // Each class is measured against the other, and gets the other's slopes in return.
      const auto mean = [&](int sum, int count) {
        return reference_point::from({.sum = seen.sum[sum], .count = seen.sum[count]});
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
    return t;
  }

  __device__ sample load(int pass, std::int64_t i) const {
    sample s;
    if (i < in.policy.size()) {
      const std::int32_t tokens = read_or(in.tokens, i, 1);
      s.counted = tokens > 0;
      if (s.counted && (pass != observe || point.kind == point_kind::cross_class)) {
        s.desirable = read(in.desirable, i) != 0;
        s.value = read_completion(in.policy, in.reference, i, tokens);
      }
    }
    if (pass == observe && i < point.mismatched.policy.size()) {
      s.observed = read_or(point.mismatched.tokens, i, 1) > 0;
      if (s.observed) {
        s.observed_ratio = read(point.mismatched.policy, i) - read(point.mismatched.reference, i);
      }
    }
    return s;
  }

  __device__ void add(int pass, std::int64_t i, const sample& s, const terms& t,
                      row_sums& sums) const {
    // A row that is not finite spoils its own results, which are reported, and not those of the
    // other class.
    const bool in_class = s.counted && finite(s.value.policy) && finite(s.value.ratio);
    if (pass == observe) {
      sums.sum[all_counted] += s.counted ? 1 : 0;
      sums.sum[mismatched_ratio] += static_cast<double>(s.observed_ratio);
      sums.sum[mismatched_count] += s.observed ? 1 : 0;
      if (in_class && point.kind == point_kind::cross_class) {
        const double ratio = static_cast<double>(s.value.ratio);
        sums.sum[n_up] += s.desirable ? 1 : 0;
        sums.sum[n_down] += s.desirable ? 0 : 1;
        sums.sum[ratio_up] += s.desirable ? ratio : 0;
        sums.sum[ratio_down] += s.desirable ? 0 : ratio;
      }
      return;
    }
    S loss_out = store<S>(R(0)), d_policy = loss_out, reward_out = loss_out;
    if (s.counted) {
      // Chosen number by number: a choice between the two structs would put them into memory.
      const double z = s.desirable ? t.up.against.z : t.down.against.z;
      const double attached = s.desirable ? t.up.attached : t.down.attached;
      const auto value = differentiate(
          loss, unpaired<R>{.answer = s.value, .z = static_cast<R>(z), .desirable = s.desirable});
      if (pass == attach) {
        const double slope = in_class ? static_cast<double>(value.d_z) : 0;
        sums.sum[slope_up] += s.desirable ? slope : 0;
        sums.sum[slope_down] += s.desirable ? 0 : slope;
        return;
      }
      const double reward = reward_scale(loss) * static_cast<double>(s.value.ratio);
      const double policy = static_cast<double>(s.value.policy);
      loss_out = rounded<S>(static_cast<double>(value.loss));
      d_policy = rounded<S>(t.factor * (static_cast<double>(value.d_policy) + attached));
      reward_out = rounded<S>(reward);
      sums.sum[counted] += 1;
      sums.sum[desirable] += s.desirable ? 1 : 0;
      sums.sum[loss_sum] += static_cast<double>(value.loss);
      sums.sum[chosen] += s.desirable ? reward : 0;
      sums.sum[rejected] += s.desirable ? 0 : reward;
      sums.sum[logp_chosen] += s.desirable ? policy : 0;
      sums.sum[logp_rejected] += s.desirable ? 0 : policy;
      const bool fine = finite(s.value.policy) && finite(s.value.ratio) && stays_finite(loss_out) &&
                        stays_finite(d_policy);
      if (!fine) {
        sums.nonfinite += 1;
        if (i < sums.first_nonfinite) sums.first_nonfinite = i;
      }
    }
    if (pass == attach) return;
    put(out.loss, i, loss_out);
    put(out.d_policy, i, d_policy);
    put(out.reward, i, reward_out);
  }

  __device__ void finish(const pass_totals& totals, const terms& t) const {
    const row_sums& seen = totals.of[observe];
    if (point.mismatched.observed != nullptr) {
      *point.mismatched.observed = {.sum = seen.sum[mismatched_ratio],
                                    .count = seen.sum[mismatched_count]};
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
      m.kl.add(z.z);
      m.kl_unclamped.add(z.raw);
    };
    if (point.kind != point_kind::cross_class) {
      report(t.up.against);
    } else {
      if (seen.sum[n_up] > 0) report(t.down.against);
      if (seen.sum[n_down] > 0) report(t.up.against);
    }
    *metrics = m;
  }
};

/// The sum of mismatched rows' log-ratios and their number.
template <storage S>
struct mismatched_job {
  mismatched_batch<S> in;

  struct sample {
    bool counted = false;
    compute_t<S> ratio = 0;
  };
  struct terms {};

  PROSPECT_HD bool wants(int pass) const { return pass == results; }
  PROSPECT_HD std::int64_t rows(int) const { return in.policy.size(); }

  __device__ terms begin(const pass_totals&) const { return {}; }
  __device__ sample load(int, std::int64_t i) const {
    sample s;
    s.counted = read_or(in.tokens, i, 1) > 0;
    if (s.counted) s.ratio = read(in.policy, i) - read(in.reference, i);
    return s;
  }
  __device__ void add(int, std::int64_t, const sample& s, const terms&, row_sums& sums) const {
    sums.sum[0] += static_cast<double>(s.ratio);
    sums.sum[1] += s.counted ? 1 : 0;
  }
  __device__ void finish(const pass_totals& totals, const terms&) const {
    *in.observed = {.sum = totals.of[results].sum[0], .count = totals.of[results].sum[1]};
  }
};

}  // namespace prospect::inline v1::cuda::detail
PROSPECT_STRICT_END
