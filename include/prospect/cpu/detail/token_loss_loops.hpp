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

  PROSPECT_INLINE token_sums& operator+=(const token_sums& later) {
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
                                 double entropy_coef, tally<2>& loss_and_clipped);
  sum contribution = nullptr, d_sum = nullptr;
  differentiate results;
};

/// value(i) of the tokens from i on, those of a block that are kept, added up.
template <std::floating_point R, class F>
PROSPECT_INLINE double sum_of_block(const tokens_at<R>& rows, int n, const F& value) {
  tally<1> sums;
  running_tally<1> here{sums};
  for (int i = 0; i < n; i += lanes<R>) {
    here.add(0, i, select(rows.kept(i), value(i), several<R>(0)));
  }
  here.store_to(sums);
  return sums.total(0);
}

template <std::floating_point R, class Loss>
[[gnu::flatten]] double contribution_of_block(const void* of_loss, const tokens_at<R>& block, int n,
                                              const sequence_terms& of) {
  const Loss loss = *static_cast<const Loss*>(of_loss);
  const tokens_at<R> rows = block;
  return sum_of_block(rows, n, [&](int i) {
    return contributions_of<R>(loss, rows.several_of(i), of, rows.kept(i)).value;
  });
}

template <std::floating_point R, class Loss>
[[gnu::flatten]] double d_sum_of_block(const void* of_loss, const tokens_at<R>& block, int n,
                                       const sequence_terms& of) {
  const Loss loss = *static_cast<const Loss*>(of_loss);
  const tokens_at<R> rows = block;
  return sum_of_block(rows, n, [&](int i) {
    return weighted(load_several(rows.weight + i),
                    values_of<R>(loss, rows.several_of(i), of, rows.kept(i)).d_sum);
  });
}

/// A block's losses and coefficients, added to the sums, and whether all is finite.
template <std::floating_point R, class Loss>
[[gnu::flatten]] bool token_results_of_block(const void* of_loss, const tokens_at<R>& block,
                                             const token_results_at<R>& to, int n,
                                             const sequence_terms& of, double entropy_coef,
                                             tally<2>& loss_and_clipped) {
  // Copies, which no result can overlap.
  const Loss loss = *static_cast<const Loss*>(of_loss);
  const tokens_at<R> rows = block;
  R* const losses = to.loss.row;
  R* const coefficients = to.d_policy.row;
  const sequence_terms terms = of;
  const several<R> none = 0;
  const several<R> one = 1;
  const several<R> bonus = entropy_coef;
  const times<R> factor{terms.factor};
  running_tally<2> here{loss_and_clipped};
  several<R> clipped;
  finite_probe<R> probe;
  for (int i = 0; i < n; i += lanes<R>) {
    const auto kept = rows.kept(i);
    const tokens<R> t = rows.several_of(i);
    const several<R> weight = load_several(rows.weight + i);
    const several<R> entropy = load_several(rows.entropy + i);
    const token_value<several<R>> v = values_of<R>(loss, t, terms, kept);
    several<R> d = weighted(weight, v.d_policy);
    if constexpr (sums_tokens<Loss>) {
      d += contributions_of<R>(loss, t, terms, kept).slope * several<R>(terms.d_sum);
    }
    const several<R> value = select(kept, weighted(weight, v.loss - bonus * entropy), none);
    const several<R> coefficient = select(kept, factor(d), none);
    store_several(losses + i, value);
    store_several(coefficients + i, coefficient);
    here.add(0, i, value);
    const auto held = kept && d == none;
    clipped += select(held, select(t.advantage == none, none, one), none);
    probe.look_at(t.policy, t.ratio, t.reference_ratio, t.advantage, weight, entropy, value,
                  coefficient);
  }
  here.add(1, 0, clipped);
  here.store_to(loss_and_clipped);
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
        policy_{in.policy},
        old_{in.old},
        reference_{in.reference},
        advantage_{in.token_advantage},
        weight_{in.weight},
        entropy_{in.entropy},
        losses_{out.loss},
        d_policy_{out.d_policy},
        d_entropy_{out.d_entropy} {}

  void add(std::int64_t sequence) {
    const std::int64_t first = in_.layout.begin(sequence);
    const std::int64_t last = in_.layout.end(sequence);
    zero_rows(out_, in_.layout.gap(sequence), first);
    const std::int64_t tokens = scored_.count(first, last);
    if (tokens == 0) return zero_rows(out_, first, last);
    const auto n = static_cast<double>(tokens);
    const bool of_means = average_ == averaging::sequence_means;
    sequence_terms terms{.tokens = n, .factor = of_means ? factor_ / n : factor_};
    if (in_.token_advantage.empty()) {
      const R advantage = in_.advantage.empty() ? R(0) : in_.advantage.get<R>(sequence);
      seen_.sum[token_sum::advantages] += n * double{advantage};
      std::fill_n(of_sequence_.row, (std::min)(tokens + lanes<R>, std::int64_t{block_size}),
                  advantage);
    }
    if (blocks_.contribution != nullptr) {
      terms.sum = summed(blocks_.contribution, first, last, terms);
      terms.d_sum = summed(blocks_.d_sum, first, last, terms);
    }
    const double loss = results(first, last, terms);
    seen_.sum[token_sum::loss] += of_means ? loss / n : loss;
    seen_.tokens += n;
    ++seen_.sequences;
  }
  const token_sums& seen() const { return seen_; }

 private:
  tokens_at<R> read(const scored_block& block) {
    const R* const present = ones<R>.row + (block_size - block.at.count);
    const auto row = [&](row_reader<R>& given, const R* otherwise) {
      const R* const at = given.read(block.at, block.through);
      return at == nullptr ? otherwise : at;
    };
    const R* const policy = policy_.read(block.at, block.through);
    const R* const nothing = ones<R>.row + block_size;
    return {.scored = present,
            .policy = policy,
            .old = row(old_, policy),
            .reference = row(reference_, policy),
            .advantage = row(advantage_, of_sequence_.row),
            .weight = row(weight_, present),
            .entropy = in_.entropy_coef == 0 ? nothing : row(entropy_, nothing),
            .has_old = !in_.old.empty(),
            .has_reference = !in_.reference.empty()};
  }

  double summed(typename token_blocks<R>::sum of_block, std::int64_t first, std::int64_t last,
                const sequence_terms& terms) {
    double sum = 0;
    scored_.for_each_block_of(first, last, [&](const scored_block& block) {
      sum += of_block(loss_, read(block), whole_vectors(block.at), terms);
    });
    return sum;
  }

  /// Writes what a sequence gives, and returns the sum of its losses.
  double results(std::int64_t first, std::int64_t last, const sequence_terms& terms) {
    tally<2> loss_and_clipped;
    std::int64_t done = first;
    scored_.for_each_block_of(first, last, [&](const scored_block& block) {
      const std::int64_t end = block.row(block.at.count - 1) + 1;
      zero_rows(out_, done, block.through == nullptr ? block.row(0) : end);
      done = end;
      const int n = whole_vectors(block.at);
      const tokens_at<R> rows = read(block);
      const auto place = [&](row_writer<R>& to) {
        return results_at<R>{to.begin(block.at, block.through), to.limit()};
      };
      const token_results_at<R> out{
          .loss = place(losses_), .d_policy = place(d_policy_), .d_entropy = place(d_entropy_)};
      bool finite = blocks_.results(loss_, rows, out, n, terms, in_.entropy_coef, loss_and_clipped);
      d_entropies(rows, out.d_entropy.row, n, terms);
      finite &= measure(block, rows, n);
      for (row_writer<R>* to : {&losses_, &d_policy_, &d_entropy_}) {
        finite &= to->write(block.at, block.through);
      }
      if (!finite) note(block, rows, out);
    });
    zero_rows(out_, done, last);
    seen_.sum[token_sum::clipped] += loss_and_clipped.total(1);
    return loss_and_clipped.total(0);
  }

  void d_entropies(const tokens_at<R>& rows, R* to, int n, const sequence_terms& terms) const {
    if (out_.d_entropy.empty()) {
      std::fill_n(to, n, R(0));
      return;
    }
    const times<R> factor{in_.entropy_coef == 0 ? 0.0 : -in_.entropy_coef * terms.factor};
    for (int i = 0; i < n; i += lanes<R>) {
      const several<R> d = factor(load_several(rows.weight + i));
      store_several(to + i, select(rows.kept(i), d, several<R>(0)));
    }
  }

  /// The means that are no business of the loss; false if one is of what is no number.
  bool measure(const scored_block& block, const tokens_at<R>& rows, int n) {
    const auto add = [&](int which, const auto& value) {
      const double sum = sum_of_block(rows, n, value);
      seen_.sum[which] += sum;
      return prospect::detail::is_finite(sum);
    };
    if (rows.has_old)
      add(token_sum::ratio, [&](int i) { return ratios(rows.several_of(i).ratio); });
    if (rows.has_reference) {
      add(token_sum::kl, [&](int i) { return divergences(rows.several_of(i).reference_ratio); });
    }
    if (!in_.token_advantage.empty()) {
      add(token_sum::advantages, [&](int i) { return rows.several_of(i).advantage; });
    }
    if (in_.entropy.empty()) return true;
    const R* const entropy = entropy_.read(block.at, block.through);
    return add(token_sum::entropy, [&](int i) { return load_several<R>(entropy + i); });
  }

  [[gnu::cold, gnu::noinline]] void note(const scored_block& block, const tokens_at<R>& rows,
                                         const token_results_at<R>& out) {
    const R* const entropy = entropy_.read(block.at, block.through);
    for (std::int64_t i = 0; i < block.at.count; ++i) {
      const bool measured = entropy == nullptr || prospect::detail::is_finite(entropy[i]);
      if (measured && rows.finite(i) && out.finite(i)) continue;
      ++seen_.nonfinite;
      if (seen_.first_nonfinite < 0) seen_.first_nonfinite = block.row(i);
    }
  }

  const token_blocks<R>& blocks_;
  const void* loss_;
  averaging average_;
  const token_batch& in_;
  const token_batch_outputs& out_;
  double factor_;
  scored_rows scored_;
  row_reader<R> policy_, old_, reference_, advantage_, weight_, entropy_;
  row_writer<R> losses_, d_policy_, d_entropy_;
  block<R> of_sequence_;  ///< its advantage, for each of its tokens
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
    token_run<R> run{blocks, &one, loss.average, in, out, factor};
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
