// What the sequence kernel does with a batch of tokens. A tile is a sequence, in the hands of one
// block: what its tokens add up to is known behind a barrier, and only what the whole batch counts
// takes a pass of its own.
//
// A sequence's threads share its rows out from the first scored one on. So sums, and with them all
// results, do not depend on where it lies, nor on how much prompt or padding stands around it.
#pragma once

#include <prospect/cuda/detail/block_rows.cuh>
#include <prospect/cuda/detail/samples.cuh>
#include <prospect/losses/parts/kl.hpp>
#include <prospect/token_batch.hpp>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cuda::detail {

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

/// Whether a loss, or that one of several which it is, reads the sum over its sequence.
template <class Loss>
__device__ bool sums(const Loss&) {
  return sums_tokens<Loss>;
}
template <template <class...> class Any, class... L>
  requires one_of_several<Any<L...>>
__device__ bool sums(const Any<L...>& loss) {
  std::int32_t i = 0;
  return (... || (loss.which == i++ && sums_tokens<L>));
}
/// Whether it changes with that sum, and not only with what the sum is.
template <class Loss>
__device__ bool attaches(const Loss&) {
  return attaches_sum<Loss>;
}
template <template <class...> class Any, class... L>
  requires one_of_several<Any<L...>>
__device__ bool attaches(const Any<L...>& loss) {
  std::int32_t i = 0;
  return (... || (loss.which == i++ && attaches_sum<L>));
}

template <class Loss, std::floating_point R>
struct token_loss_job {
  /// As many as there are registers for without a spill, where the compiler was seen to manage. By
  /// itself, a loss that sums wants more than one of several.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900 && __CUDA_ARCH__ < 1000
  static constexpr int resident_blocks =
      sizeof(R) == 4 && (one_of_several<Loss> || !sums_tokens<Loss>) ? 2 : 1;
#else
  static constexpr int resident_blocks = 1;
#endif
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
    R advantage, tokens, sum;
    double share;   ///< of a token's loss in what is averaged
    double factor;  ///< between a token's derivative and its coefficient
    double d_sum;   ///< dL/dsum over all its tokens, before the factor
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
    for (auto i = static_cast<unsigned>(stripe); i < tiles(); i += most_stripes) {
      const scored_span span = look_at(i, pass == results);
      if (span.count == 0) continue;
      if (threadIdx.x == 0) {
        mine.sum[tokens] += static_cast<double>(span.count);
        mine.sum[sequences] += 1;
      }
      if (pass == results) evaluate(i, span, t.factor, mine);
    }
    return mine;
  }
  __device__ void finish(const pass_totals& totals, const terms& t) const {
    if (metrics == nullptr) return;
    const row_sums& all = totals.of[results];
    const double n = all.sum[tokens];
    const bool of_tokens = loss.average == averaging::tokens;
    const bool has_advantages = !in.advantage.empty() || !in.token_advantage.empty();
    const auto of = [&](int which, bool given) {
      return given ? sum_count{.sum = all.sum[which], .count = n} : sum_count{};
    };
    *metrics = {.loss = {.sum = all.sum[loss_sum], .count = of_tokens ? n : all.sum[sequences]},
                .advantages = of(advantages, has_advantages),
                .ratio = of(ratios, true),
                .clip_ratio = of(clipped, has_advantages),
                .kl = of(kl, !in.reference.empty()),
                .entropy = of(entropies, !in.entropy.empty()),
                .tokens = {.sum = n, .count = all.sum[sequences]},
                .nonfinite = {.sum = all.nonfinite, .count = n},
                .first_nonfinite = index_or_none(all.first_nonfinite),
                .total = t.factor * all.sum[loss_sum]};
  }

 private:
  __device__ bool scored(std::int64_t t) const {
    return (in.mask.empty() || in.mask[t]) &&
           (in.targets.empty() || in.targets[t] != ignored_target);
  }
  /// Finds the scored rows of sequence i. The others, and those around it that are of none, have
  /// results of 0, which are written if that is wanted.
  __device__ scored_span look_at(std::int64_t i, bool clears) const {
    const block_rows here{in.layout, i, in.policy.size()};
    scored_span mine;
#pragma unroll 1
    for (std::int64_t t = here.gap + threadIdx.x; t < here.stop(); t += sequence_threads) {
      if (t >= here.begin && t < here.end && scored(t)) {
        mine = join_spans{}(mine, {t, t + 1, 1});
      } else if (clears) {
        put(out.loss, t, R(0));
        put(out.d_policy, t, R(0));
        put(out.d_entropy, t, R(0));
      }
    }
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

  __device__ token<R> read(std::int64_t t, const sequence& of) const {
    const R p = read_as<R>(in.policy, t);
    return {.policy = p,
            .ratio = in.old.empty() ? R(0) : p - read_as<R>(in.old, t),
            .reference_ratio = in.reference.empty() ? R(0) : p - read_as<R>(in.reference, t),
            .advantage = read_or(in.token_advantage, t, of.advantage),
            .sum = of.sum,
            .tokens = of.tokens};
  }
  __device__ R weight_of(std::int64_t t) const { return read_or(in.weight, t, R(1)); }

  __device__ void evaluate(std::int64_t i, const scored_span& span, double factor,
                           row_sums& mine) const {
    const bool of_means = loss.average == averaging::sequence_means;
    const double share = of_means ? 1 / static_cast<double>(span.count) : 1;
    sequence of{.advantage = read_or(in.advantage, i, R(0)),
                .tokens = static_cast<R>(span.count),
                .share = share,
                .factor = factor * share};
    if constexpr (sums_tokens<Loss>) {
      if (sums(loss)) add_up_sequence(span, of);
    }
    for_each_scored(span, [&](std::int64_t t) { add(t, of, mine); });
  }
  __device__ void add_up_sequence(const scored_span& span, sequence& of) const {
    double sum = 0, d_sum = 0;
    for_each_scored(span, [&](std::int64_t t) {
      sum += static_cast<double>(contribution(loss, read(t, of)).value);
    });
    of.sum = static_cast<R>(over_block(sum, plus{}));
    for_each_scored(span, [&](std::int64_t t) {
      d_sum += static_cast<double>(weighted(weight_of(t), differentiate(loss, read(t, of)).d_sum));
    });
    // Asked all the same: a loop that some of several losses leave out spills.
    const double attached = over_block(d_sum, plus{});
    of.d_sum = attaches(loss) ? attached : 0;
  }

  __device__ void add(std::int64_t t, const sequence& of, row_sums& mine) const {
    const token<R> sample = read(t, of);
    const token_value<R> value = differentiate(loss, sample);
    const R weight = weight_of(t);
    const R entropy = read_or(in.entropy, t, R(0));
    mine.sum[advantages] += static_cast<double>(sample.advantage);
    mine.sum[ratios] += static_cast<double>(exp(sample.ratio));
    mine.sum[kl] += static_cast<double>(kl_estimate_3(sample));
    mine.sum[entropies] += static_cast<double>(entropy);
    finite_probe<R> probe;
    for (const R x :
         {sample.policy, sample.ratio, sample.reference_ratio, sample.advantage, weight, entropy}) {
      probe.look_at(x);
    }
    // A bonus that is not wanted is not there, whatever the entropy holds.
    const bool bonus = in.entropy_coef != 0;
    const R without = bonus ? value.loss - static_cast<R>(in.entropy_coef) * entropy : value.loss;
    const R loss_out = weighted(weight, without);
    double d = static_cast<double>(weighted(weight, value.d_policy));
    if constexpr (sums_tokens<Loss>) {
      if (sums(loss)) d += static_cast<double>(contribution(loss, sample).slope) * of.d_sum;
    }
    const double d_bonus = bonus ? -in.entropy_coef * of.factor * static_cast<double>(weight) : 0.0;
    probe.look_at(put(out.loss, t, loss_out));
    probe.look_at(put(out.d_policy, t, static_cast<R>(of.factor * d)));
    probe.look_at(put(out.d_entropy, t, static_cast<R>(d_bonus)));
    if (!probe.finite()) note_nonfinite(mine, t);

    mine.sum[loss_sum] += of.share * static_cast<double>(loss_out);
    mine.sum[clipped] += sample.advantage != 0 && d == 0 ? 1 : 0;
  }
};

}  // namespace prospect::inline v2::cuda::detail
PROSPECT_STRICT_END
