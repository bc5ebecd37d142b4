// What the sequence kernel does with a batch of tokens. A tile is a sequence, and in the hands of
// one block: what its tokens add up to is known behind a barrier, and only what the whole batch
// counts takes another pass.
//
// Threads deal out the rows of a sequence from its first scored one on. So sums, and with them all
// results, do not depend on how much padding or prompt stands around a sequence, nor where it lies.
#pragma once

#include <prospect/cuda/detail/block_rows.cuh>
#include <prospect/cuda/detail/samples.cuh>
#include <prospect/token_batch.hpp>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v1::cuda::detail {

/// From the first scored row of a sequence to behind the last, and how many are scored.
struct scored_span {
  std::int64_t first = row_sums::none, end = 0, count = 0;
};
struct join_spans {
  __device__ scored_span operator()(const scored_span& a, const scored_span& b) const {
    return {least{}(a.first, b.first), a.end < b.end ? b.end : a.end, a.count + b.count};
  }
};

__device__ inline double from_lane(double x, int apart) {
  return __shfl_xor_sync(0xffffffffU, x, apart);
}
__device__ inline scored_span from_lane(const scored_span& x, int apart) {
  return {__shfl_xor_sync(0xffffffffU, x.first, apart), __shfl_xor_sync(0xffffffffU, x.end, apart),
          __shfl_xor_sync(0xffffffffU, x.count, apart)};
}

/// What the threads of a block have, added up: the same bits in all of them.
template <class T, class Add>
__device__ T over_block(T x, const Add& add) {
  constexpr int warps = sequence_threads / 32;
  __shared__ __align__(16) std::byte memory[sizeof(T) * warps];
  T* const of_warp = reinterpret_cast<T*>(memory);
#pragma unroll
  for (int apart = 16; apart > 0; apart /= 2) x = add(x, from_lane(x, apart));
  if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = x;
  __syncthreads();
  x = of_warp[threadIdx.x % warps];
#pragma unroll
  for (int apart = warps / 2; apart > 0; apart /= 2) x = add(x, from_lane(x, apart));
  __syncthreads();
  return x;
}

/// Calls f(loss), with the loss itself where it is one of several: the choice is made once for all
/// tokens of a sequence.
template <class Loss, class F>
__device__ void with_the_loss(const Loss& loss, const F& f) {
  f(loss);
}
template <template <class...> class Any, class... L, class F>
  requires one_of_several<Any<L...>>
__device__ void with_the_loss(const Any<L...>& loss, const F& f) {
  std::int32_t i = 0;
  (void)(... || (loss.which == i++ && (f(loss.template as<L>()), true)));
}

template <class Loss, std::floating_point R>
struct token_loss_job {
  enum { loss_sum, advantages, ratios, clipped, kl, entropies, tokens, sequences };

  Loss loss;
  token_batch in;
  token_batch_outputs out;
  denominator by;
  token_metrics* metrics;

  struct terms {
    double factor;
  };
  /// What the tokens of a sequence have in common.
  struct sequence {
    R advantage, tokens, sum = 0;
    double factor;     ///< between a token's derivative and its coefficient
    double bonus;      ///< between its weight and the coefficient of its entropy
    double d_sum = 0;  ///< dL/dsum over all tokens, before the factor
  };

  PROSPECT_HD bool wants(int pass) const {
    return pass == results || (pass == observe && by.counts());
  }
  PROSPECT_HD std::int64_t rows(int) const { return in.policy.size(); }
  /// One even without a sequence: there may be rows of none.
  PROSPECT_HD std::int64_t tiles() const {
    return in.layout.sequences() > 0 ? in.layout.sequences() : 1;
  }

  __device__ terms begin(const pass_totals& totals) const {
    const row_sums& counted = totals.of[observe];
    return {by.factor(counted.sum[loss.average == averaging::tokens ? tokens : sequences])};
  }
  __device__ row_sums sum_stripe(int pass, const terms& t, std::int64_t stripe) const {
    row_sums mine;
    for (std::int64_t i = stripe; i < tiles(); i += most_stripes) {
      const scored_span span = pass == observe ? look_at(i, [](std::int64_t) {})
                                               : look_at(i, [&](std::int64_t row) { clear(row); });
      if (span.count == 0) continue;
      if (threadIdx.x == 0) {
        mine.sum[tokens] += static_cast<double>(span.count);
        mine.sum[sequences] += 1;
      }
      if (pass == results) evaluate(i, span, t, mine);
    }
    return mine;
  }
  __device__ void finish(const pass_totals& totals, const terms& t) const {
    if (metrics == nullptr) return;
    const row_sums& sums = totals.of[results];
    const double n = sums.sum[tokens];
    const double averaged = loss.average == averaging::tokens ? n : sums.sum[sequences];
    const double judged = in.advantage.empty() && in.token_advantage.empty() ? 0 : n;
    const auto of = [&](int which, double count) {
      return sum_count{.sum = sums.sum[which], .count = count};
    };
    *metrics = {.loss = of(loss_sum, averaged),
                .advantages = of(advantages, judged),
                .ratio = of(ratios, n),
                .clip_ratio = of(clipped, judged),
                .kl = of(kl, in.reference.empty() ? 0 : n),
                .entropy = of(entropies, in.entropy.empty() ? 0 : n),
                .tokens = of(tokens, sums.sum[sequences]),
                .nonfinite = {.sum = sums.nonfinite, .count = n},
                .first_nonfinite = index_or_none(sums.first_nonfinite),
                .total = t.factor * sums.sum[loss_sum]};
  }

 private:
  __device__ bool scored(std::int64_t t) const {
    return (in.mask.empty() || in.mask[t]) &&
           (in.targets.empty() || in.targets[t] != ignored_target);
  }
  /// Calls unscored(row) for the rows of sequence i that are not scored, and those around it that
  /// are of none.
  template <class F>
  __device__ scored_span look_at(std::int64_t i, const F& unscored) const {
    const block_rows rows{in.layout, i, in.policy.size()};
    scored_span mine;
    rows.for_each_outside(unscored);
    rows.for_each_inside([&](std::int64_t t) {
      if (scored(t)) {
        mine = join_spans{}(mine, {t, t + 1, 1});
      } else {
        unscored(t);
      }
    });
    return over_block(mine, join_spans{});
  }
  /// Calls f(row) for this thread's share of the scored rows.
  template <class F>
  __device__ void for_each_scored(const scored_span& span, const F& f) const {
#pragma unroll 1
    for (std::int64_t t = span.first + threadIdx.x; t < span.end; t += sequence_threads) {
      if (scored(t)) f(t);
    }
  }
  __device__ void clear(std::int64_t t) const {
    put(out.loss, t, R(0));
    put(out.d_policy, t, R(0));
    put(out.d_entropy, t, R(0));
  }

  __device__ token<R> read(std::int64_t t, const sequence& of) const {
    const R p = read_as<R>(in.policy, t);
    return {.policy = p,
            .ratio = in.old.empty() ? R(0) : p - read_as<R>(in.old, t),
            .reference_ratio = in.reference.empty() ? R(0) : p - read_as<R>(in.reference, t),
            .advantage = read_or(in.token_advantage, t, of.advantage),
            .sum = of.sum,
            .tokens = of.tokens};
  }
  /// The estimate e^x - 1 - x >= 0, x = log (reference / policy), of their divergence.
  __device__ static double divergence(R log_ratio) {
    const auto x = static_cast<double>(log_ratio);
    return expm1(-x) + x;
  }
  __device__ R weight_of(std::int64_t t) const { return read_or(in.weight, t, R(1)); }

  __device__ void evaluate(std::int64_t i, const scored_span& span, const terms& t,
                           row_sums& sums) const {
    const auto n = static_cast<double>(span.count);
    const bool of_means = loss.average == averaging::sequence_means;
    const double factor = of_means ? t.factor / n : t.factor;
    sequence of{.advantage = read_or(in.advantage, i, R(0)),
                .tokens = static_cast<R>(n),
                .factor = factor,
                .bonus = in.entropy_coef == 0 ? 0 : -in.entropy_coef * factor};
    double losses = 0;
    with_the_loss(loss, [&]<class One>(const One& one) {
      if constexpr (sums_tokens<One>) {
        double sum = 0;
        for_each_scored(span, [&](std::int64_t row) {
          sum += static_cast<double>(contribution(one, read(row, of)).value);
        });
        of.sum = static_cast<R>(over_block(sum, plus{}));
        double d_sum = 0;
        for_each_scored(span, [&](std::int64_t row) {
          const R here = differentiate(one, read(row, of)).d_sum;
          d_sum += static_cast<double>(weighted(weight_of(row), here));
        });
        of.d_sum = over_block(d_sum, plus{});
      }
      for_each_scored(span, [&](std::int64_t row) { losses += add(one, row, of, sums); });
    });
    sums.sum[loss_sum] += of_means ? losses / n : losses;
  }

  /// Writes what becomes of a token, and returns its loss.
  template <class One>
  __device__ double add(const One& one, std::int64_t t, const sequence& of, row_sums& sums) const {
    const token<R> sample = read(t, of);
    const token_value<R> value = differentiate(one, sample);
    const R weight = weight_of(t);
    const R entropy = read_or(in.entropy, t, R(0));
    finite_probe<R> probe;
    probe.look_at(sample.policy);
    probe.look_at(sample.ratio);
    probe.look_at(sample.reference_ratio);
    probe.look_at(sample.advantage);
    probe.look_at(weight);
    probe.look_at(entropy);

    R bare = value.loss;
    if (in.entropy_coef != 0) bare -= static_cast<R>(in.entropy_coef) * entropy;
    const R loss_out = weighted(weight, bare);
    double d = static_cast<double>(weighted(weight, value.d_policy));
    if constexpr (sums_tokens<One>) {
      d += static_cast<double>(contribution(one, sample).slope) * of.d_sum;
    }
    probe.look_at(put(out.loss, t, loss_out));
    probe.look_at(put(out.d_policy, t, static_cast<R>(of.factor * d)));
    probe.look_at(put(out.d_entropy, t, static_cast<R>(of.bonus * static_cast<double>(weight))));
    if (!probe.finite()) note_nonfinite(sums, t);

    sums.sum[advantages] += static_cast<double>(sample.advantage);
    sums.sum[ratios] += static_cast<double>(exp(sample.ratio));
    sums.sum[clipped] += sample.advantage != 0 && d == 0 ? 1 : 0;
    if (!in.reference.empty()) sums.sum[kl] += divergence(sample.reference_ratio);
    sums.sum[entropies] += static_cast<double>(entropy);
    return static_cast<double>(loss_out);
  }
};

}  // namespace prospect::inline v1::cuda::detail
PROSPECT_STRICT_END
