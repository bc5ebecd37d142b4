// The loop over a run of sequences of a batch of tokens: from rows to results, each sequence while
// it is in cache. One for every loss, but for what a block of tokens goes through.
#pragma once

#include <prospect/cpu/detail/sequence_sums.hpp>
#include <prospect/cpu/detail/token_samples.hpp>
#include <prospect/token_batch.hpp>

#include <cstddef>
#include <cstring>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v1::cpu::detail {

/// What the tokens of a sequence add up to.
struct token_sum {
  enum { loss, advantages, ratio, clipped, kl, entropy, size };
};

/// What a run of sequences adds up to, sequence by sequence: in an order that no layout changes.
struct token_sums {
  double sum[token_sum::size] = {};
  double tokens = 0, sequences = 0;
  double nonfinite = 0;
  std::int64_t first_nonfinite = -1;

  token_sums& operator+=(const token_sums& later) {
    for (int k = 0; k < token_sum::size; ++k) sum[k] += later.sum[k];
    tokens += later.tokens;
    sequences += later.sequences;
    nonfinite += later.nonfinite;
    if (first_nonfinite < 0) first_nonfinite = later.first_nonfinite;
    return *this;
  }
};

/// The loops for one loss of tokens and type of arithmetic. The archive fills the table with those
/// of the instruction set it finds, header-only users have those of the one they compile for.
template <std::floating_point R, class Loss>
struct token_kernels {
  token_sums (*results)(const Loss& loss, const token_batch& in, const token_batch_outputs& out,
                        double factor, range sequences);
};

inline namespace PROSPECT_CPU_ISA {

/// Where the results of a block of tokens go.
template <std::floating_point R>
struct token_results_at {
  results_at<R> loss, d_policy, d_entropy;

  bool finite(std::int64_t i) const {
    return loss.finite(i) && d_policy.finite(i) && d_entropy.finite(i);
  }
};

/// What a block of tokens of one loss goes through. Only a loss that sums has the first two: what
/// its tokens contribute, and how the loss changes with that, in which order they are called.
template <std::floating_point R>
struct token_blocks {
  using sum = double (*)(const void* loss, const tokens_at<R>& rows, int n,
                         const sequence_terms& of);
  using differentiate = bool (*)(const void* loss, const tokens_at<R>& rows,
                                 const token_results_at<R>& out, int n, const sequence_terms& of,
                                 double entropy_coef, tally<token_sum::size>& sums);
  sum contribution = nullptr, d_sum = nullptr;
  differentiate results;
};

/// value(tokens, which are kept) of a block, added up.
template <std::floating_point R, class F>
PROSPECT_INLINE double sum_of_block(const tokens_at<R>& rows, int n, const sequence_terms& of,
                                    const F& value) {
  const several<R> advantage = of.advantage;
  tally<1> sums;
  running_tally<1> here{sums};
  for (int i = 0; i < n; i += lanes<R>) {
    const auto kept = rows.kept(i);
    here.add(0, i, select(kept, value(i, rows.several_of(i, advantage), kept), several<R>(0)));
  }
  here.store_to(sums);
  return sums.total(0);
}

template <std::floating_point R, class Loss>
[[gnu::flatten]] double contribution_of_block(const void* of_loss, const tokens_at<R>& block, int n,
                                              const sequence_terms& of) {
  const Loss loss = *static_cast<const Loss*>(of_loss);
  const tokens_at<R> rows = block;
  return sum_of_block(rows, n, of, [&](int, const tokens<R>& t, auto kept) {
    return contributions_of<R>(loss, t, of, kept).value;
  });
}

template <std::floating_point R, class Loss>
[[gnu::flatten]] double d_sum_of_block(const void* of_loss, const tokens_at<R>& block, int n,
                                       const sequence_terms& of) {
  const Loss loss = *static_cast<const Loss*>(of_loss);
  const tokens_at<R> rows = block;
  return sum_of_block(rows, n, of, [&](int i, const tokens<R>& t, auto kept) {
    const several<R> d = values_of<R>(loss, t, of, kept).d_sum;
    return rows.weight == nullptr ? d : weighted(load_several(rows.weight + i), d);
  });
}

/// A block's results, added to `sums`, and whether all is finite.
template <std::floating_point R, class Loss>
[[gnu::flatten]] bool token_results_of_block(const void* of_loss, const tokens_at<R>& block,
                                             const token_results_at<R>& to, int n,
                                             const sequence_terms& terms, double entropy_coef,
                                             tally<token_sum::size>& sums) {
  // Copies, which no result can overlap.
  const Loss loss = *static_cast<const Loss*>(of_loss);
  const tokens_at<R> rows = block;
  const token_results_at<R> out = to;
  const sequence_terms of = terms;
  using at = token_sum;
  const several<R> none = 0;
  const several<R> one = 1;
  const several<R> sequence_advantage = of.advantage;
  const several<R> bonus = entropy_coef;
  const times<R> factor{of.factor};
  const times<R> bonus_factor{entropy_coef == 0 ? 0 : -entropy_coef * of.factor};
  running_tally<at::size> here{sums};
  several<R> clipped;
  finite_probe<R> probe;
  for (int i = 0; i < n; i += lanes<R>) {
    const auto kept = rows.kept(i);
    const auto only_kept = [&](several<R> x) { return select(kept, x, none); };
    const tokens<R> t = rows.several_of(i, sequence_advantage);
    token_value<several<R>> v = values_of<R>(loss, t, of, kept);
    several<R> weight = 1;
    if (rows.entropy != nullptr) {
      const several<R> entropy = load_several(rows.entropy + i);
      here.add(at::entropy, i, entropy);
      probe.look_at(entropy);
      if (entropy_coef != 0) v.loss -= bonus * entropy;
    }
    if (rows.weight != nullptr) {
      weight = load_several(rows.weight + i);
      v.loss = weighted(weight, v.loss);
      v.d_policy = weighted(weight, v.d_policy);
      probe.look_at(weight);
    }
    if constexpr (sums_tokens<Loss>) {
      v.d_policy += contributions_of<R>(loss, t, of, kept).slope * several<R>(of.d_sum);
    }
    const several<R> value = only_kept(v.loss);
    const several<R> d_policy = only_kept(factor(v.d_policy));
    store_several(out.loss.row + i, value);
    store_several(out.d_policy.row + i, d_policy);
    store_several(out.d_entropy.row + i, only_kept(bonus_factor(weight)));
    here.add(at::loss, i, value);
    clipped += only_kept(select(t.advantage == none, none, select(v.d_policy == none, one, none)));
    if (rows.advantage != nullptr) here.add(at::advantages, i, t.advantage);
    if (rows.old != nullptr) here.add(at::ratio, i, ratios(t.ratio, kept));
    if (rows.reference != nullptr) here.add(at::kl, i, divergences(t.reference_ratio, kept));
    probe.look_at(t.policy, t.ratio, t.reference_ratio, t.advantage, value, d_policy);
  }
  here.add(at::clipped, 0, clipped);
  here.store_to(sums);
  return probe.finite();
}

/// Zeros for the rows [first, last): they are not scored.
inline void zero_rows(const any_row& row, std::int64_t first, std::int64_t last) {
  if (row.empty() || first >= last) return;
  if (row.stride() == 1) {
    const std::int64_t bytes = bytes_of(row.type());
    std::memset(static_cast<std::byte*>(row.data()) + first * bytes, 0,
                static_cast<std::size_t>((last - first) * bytes));
  } else {
    for (std::int64_t t = first; t < last; ++t) row.put(t, 0.0F);
  }
}
inline void zero_rows(const token_batch_outputs& out, std::int64_t first, std::int64_t last) {
  for (const any_row* row : {&out.loss, &out.d_policy, &out.d_entropy}) {
    zero_rows(*row, first, last);
  }
}

/// The sequences of a run, one after the other.
template <std::floating_point R>
class token_run {
 public:
  token_run(const token_blocks<R>& blocks, const void* loss, averaging average,
            const token_batch& in, const token_batch_outputs& out, double factor)
      : blocks_{blocks},
        loss_{loss},
        average_{average},
        in_{in},
        out_{out},
        factor_{factor},
        scored_{in.targets, in.mask},
        rows_{.policy = row_reader<R>{in.policy},
              .old = row_reader<R>{in.old},
              .reference = row_reader<R>{in.reference},
              .advantage = row_reader<R>{in.token_advantage},
              .weight = row_reader<R>{in.weight},
              .entropy = row_reader<R>{in.entropy}},
        losses_{out.loss},
        d_policy_{out.d_policy},
        d_entropy_{out.d_entropy} {}

  void add(std::int64_t sequence) {
    const std::int64_t first = in_.layout.begin(sequence);
    const std::int64_t last = in_.layout.end(sequence);
    zero_rows(out_, in_.layout.gap(sequence), first);
    const auto tokens = static_cast<double>(scored_.count(first, last));
    if (tokens > 0) {
      const bool of_means = average_ == averaging::sequence_means;
      sequence_terms terms{.tokens = tokens, .factor = of_means ? factor_ / tokens : factor_};
      if (!in_.advantage.empty()) terms.advantage = in_.advantage.get<R>(sequence);
      if (blocks_.contribution != nullptr) {
        terms.sum = summed(blocks_.contribution, first, last, terms);
        terms.d_sum = summed(blocks_.d_sum, first, last, terms);
      }
      const tally<token_sum::size> sums = results(first, last, terms);
      for (int k = 0; k < token_sum::size; ++k) {
        const bool mean = k == token_sum::loss && of_means;
        seen_.sum[k] += mean ? sums.total(k) / tokens : sums.total(k);
      }
      if (!in_.advantage.empty()) seen_.sum[token_sum::advantages] += tokens * terms.advantage;
      seen_.tokens += tokens;
      ++seen_.sequences;
    } else {
      zero_rows(out_, first, last);
    }
  }
  const token_sums& seen() const { return seen_; }

 private:
  double summed(typename token_blocks<R>::sum of_block, std::int64_t first, std::int64_t last,
                const sequence_terms& terms) {
    double sum = 0;
    scored_.for_each_block_of(first, last, [&](const scored_block& block) {
      sum += of_block(loss_, rows_.read(block), whole_vectors(block.at), terms);
    });
    return sum;
  }

  tally<token_sum::size> results(std::int64_t first, std::int64_t last,
                                 const sequence_terms& terms) {
    tally<token_sum::size> sums;
    const bool finite_advantage = prospect::detail::is_finite(terms.advantage);
    std::int64_t done = first;
    scored_.for_each_block_of(first, last, [&](const scored_block& block) {
      const std::int64_t end = block.row(block.at.count - 1) + 1;
      zero_rows(out_, done, block.through == nullptr ? block.row(0) : end);
      done = end;
      const auto place = [&](row_writer<R>& to) {
        return results_at<R>{to.begin(block.at, block.through), to.limit()};
      };
      const tokens_at<R> rows = rows_.read(block);
      const token_results_at<R> out{
          .loss = place(losses_), .d_policy = place(d_policy_), .d_entropy = place(d_entropy_)};
      bool finite =
          blocks_.results(loss_, rows, out, whole_vectors(block.at), terms, in_.entropy_coef, sums);
      for (row_writer<R>* to : {&losses_, &d_policy_, &d_entropy_}) {
        finite &= to->write(block.at, block.through);
      }
      if (finite) return;
      for (std::int64_t i = 0; i < block.at.count; ++i) {
        if (finite_advantage && rows.finite(i) && out.finite(i)) continue;
        ++seen_.nonfinite;
        if (seen_.first_nonfinite < 0) seen_.first_nonfinite = block.row(i);
      }
    });
    zero_rows(out_, done, last);
    return sums;
  }

  const token_blocks<R>& blocks_;
  const void* loss_;
  averaging average_;
  const token_batch& in_;
  const token_batch_outputs& out_;
  double factor_;
  scored_rows scored_;
  token_rows<R> rows_;
  row_writer<R> losses_, d_policy_, d_entropy_;
  token_sums seen_;
};

template <std::floating_point R, class Loss>
constexpr token_blocks<R> token_blocks_of() {
  token_blocks<R> blocks{.results = token_results_of_block<R, Loss>};
  if constexpr (sums_tokens<Loss>) {
    blocks.contribution = contribution_of_block<R, Loss>;
    blocks.d_sum = d_sum_of_block<R, Loss>;
  }
  return blocks;
}

template <std::floating_point R, class Loss>
token_sums token_results_of(const Loss& loss, const token_batch& in, const token_batch_outputs& out,
                            double factor, range sequences) {
  return of_itself(loss, [&]<class One>(const One& one) {
    const token_blocks<R> blocks = token_blocks_of<R, One>();
    token_run<R> run{blocks, &one, one.average, in, out, factor};
    for (std::int64_t i = 0; i < sequences.count; ++i) run.add(sequences.first + i);
    return run.seen();
  });
}

template <std::floating_point R, class Loss>
constexpr token_kernels<R, Loss> compiled_token_kernels() noexcept {
  return {.results = token_results_of<R, Loss>};
}

}  // namespace PROSPECT_CPU_ISA
}  // namespace prospect::inline v1::cpu::detail
PROSPECT_STRICT_END
