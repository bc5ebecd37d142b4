// The loop over a run of sequences of a batch of tokens: from rows to results, each sequence while
// it is in cache. One for every loss, but for what a block of tokens goes through.
#pragma once

#include <prospect/cpu/detail/past_caches.hpp>
#include <prospect/cpu/detail/token_loss_blocks.hpp>
#include <prospect/token_batch.hpp>

#include <algorithm>
#include <cstddef>
#include <cstring>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cpu::detail {

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
                        double factor, const known_runs* known, range sequences);
};

inline namespace PROSPECT_CPU_ISA {

/// Zeros for the rows [first, last): they are not scored.
inline void zero_rows(const any_row& row, std::int64_t first, std::int64_t last, bool past_caches) {
  if (row.empty() || first >= last) return;
  if (row.stride() == 1) {
    const std::int64_t bytes = bytes_of(row.type());
    std::byte* const to = static_cast<std::byte*>(row.data()) + first * bytes;
    if (past_caches) return clear_past_caches(to, (last - first) * bytes);
    std::memset(to, 0, static_cast<std::size_t>((last - first) * bytes));
  } else {
    for (std::int64_t t = first; t < last; ++t) row.put(t, 0.0F);
  }
}
inline void zero_rows(const token_batch_outputs& out, std::int64_t first, std::int64_t last,
                      bool past_caches = false) {
  for (const any_row* row : {&out.loss, &out.d_policy, &out.d_entropy}) {
    zero_rows(*row, first, last, past_caches);
  }
}

/// How many tokens ahead a pass over a sequence asks for memory, since hardware does not follow a
/// row into the next page by itself: farther where there is little to a token. A sequence that is
/// summed up first is asked for while there is more to do, as the results of the one before it are
/// worked out, unless it is too long to stay in cache until then.
template <std::floating_point R>
struct asked_ahead {
  static constexpr std::int64_t near_bytes = 2048, far_bytes = 4096, longest = 4096;
  std::int64_t of_sums, of_results;

  asked_ahead(std::int64_t tokens, bool is_summed, bool one_row)
      : of_sums{is_summed && tokens <= longest ? 0 : far_bytes / std::int64_t{sizeof(R)}},
        of_results{is_summed && tokens <= longest
                       ? tokens
                       : (one_row ? far_bytes : near_bytes) / std::int64_t{sizeof(R)}} {}
};

/// The sequences of a run, one after the other.
template <std::floating_point R>
class token_run {
 public:
  token_run(const token_blocks<R>& blocks, const void* loss, averaging average,
            const token_batch& in, const token_batch_outputs& out, double factor,
            const known_runs* known)
      : policy_{in.policy},
        old_{in.old},
        reference_{in.reference},
        advantage_{in.token_advantage},
        weight_{in.weight},
        entropy_{in.entropy},
        losses_{out.loss},
        d_policy_{out.d_policy},
        d_entropy_{out.d_entropy},
        blocks_{blocks},
        loss_{loss},
        in_{in},
        out_{out},
        factor_{factor},
        scored_{in.targets, in.mask},
        known_{known},
        average_{average},
        plain_{in.token_advantage.empty() && in.weight.empty() && in.entropy.empty()},
        past_caches_{in.policy.size() >= worth_passing_caches},
        in_runs_{plain_ && out.d_entropy.empty() && !policy_.copies() && !old_.copies() &&
                 !reference_.copies() && !losses_.copies() && !d_policy_.copies()} {}

  void add(std::int64_t sequence) {
    const std::int64_t first = in_.layout.begin(sequence);
    const std::int64_t last = in_.layout.end(sequence);
    zero(in_.layout.gap(sequence), first);
    const bool is_known = known_ != nullptr && sequence < known_runs::most;
    found_ = is_known ? known_->of[sequence] : scored_.find(first, last);
    const std::int64_t tokens = found_.count;
    if (tokens == 0) return zero(first, last);
    ahead_ = asked_ahead<R>(last - first, blocks_.contribution != nullptr,
                            in_.old.empty() && in_.reference.empty());
    const auto n = static_cast<double>(tokens);
    const bool of_means = average_ == averaging::sequence_means;
    sequence_terms terms{.tokens = n, .factor = of_means ? factor_ / n : factor_};
    if (in_.token_advantage.empty()) {
      const R advantage = in_.advantage.empty() ? R(0) : in_.advantage.get<R>(sequence);
      seen_.sum[token_sum::advantages] += n * double{advantage};
      // Of whole vectors only the first is read.
      const std::int64_t most = plain_ && blocks_.contribution == nullptr ? few : block_size;
      std::fill_n(of_sequence_.row, (std::min)(tokens + lanes<float>, most), advantage);
    }
    if (blocks_.contribution != nullptr) {
      terms.sum = summed(blocks_.contribution, first, last, terms);
      // The same bits as the sum of floats, which in fp64 is exact.
      const bool once = std::same_as<R, float> && plain_ && blocks_.sequence_level;
      if (blocks_.d_sum != nullptr) {
        terms.d_sum = once ? n * d_sum_of_one(terms) : summed(blocks_.d_sum, first, last, terms);
      }
    }
    const tally<token_sum::size>& sums = results(first, last, terms);
    for (int k = 0; k < token_sum::size; ++k) {
      const double sum = sums.total(k);
      seen_.sum[k] += k == token_sum::loss && of_means ? sum / n : sum;
    }
    seen_.tokens += n;
    ++seen_.sequences;
  }
  const token_sums& seen() const { return seen_; }

 private:
  /// Not returned: a structure that is copied right after it was written is waited for.
  void read(const scored_block& block, std::int64_t ahead, tokens_at<R>& to) {
    const int count = static_cast<int>(block.at.count);
    const R* const present = ones<R>.row + (block_size - (std::min)(count, block_size));
    const auto row = [&](row_reader<R>& given, const R* otherwise) {
      const R* const at = given.read(block.at, block.pieces);
      return at == nullptr ? otherwise : at;
    };
    const R* const policy = policy_.read(block.at, block.pieces);
    const R* const nothing = ones<R>.row + block_size;
    to = {.count = count,
          .scored = present,
          .policy = policy,
          .old = row(old_, policy),
          .reference = row(reference_, policy),
          .advantage = row(advantage_, of_sequence_.row),
          .weight = row(weight_, present),
          .entropy = in_.entropy_coef == 0 ? nothing : row(entropy_, nothing),
          .measured_entropy = row(entropy_, nullptr),
          .ahead = ahead,
          .has_old = !in_.old.empty(),
          .has_reference = !in_.reference.empty(),
          .has_advantages = !in_.token_advantage.empty(),
          .clips = !in_.token_advantage.empty() || of_sequence_.row[0] != 0};
  }

  void zero(std::int64_t first, std::int64_t last) const {
    zero_rows(out_, first, last, past_caches_);
  }

  double summed(typename token_blocks<R>::sum of_block, std::int64_t first, std::int64_t last,
                const sequence_terms& terms) {
    double sum = 0;
    scored_.for_each_block_of(found_, first, last, waiting_, [&](const scored_block& block) {
      read(block, ahead_.of_sums, read_);
      sum += of_block(loss_, read_, whole_vectors(block.at), terms);
    });
    return sum;
  }

  /// dL/dsum of a token that stands for all, without a weight.
  double d_sum_of_one(const sequence_terms& terms) const {
    const R* const one = ones<R>.row + (block_size - 1);
    const R* const nothing = one + 1;
    return blocks_.d_sum(loss_,
                         {.count = 1,
                          .scored = one,
                          .policy = nothing,
                          .old = nothing,
                          .reference = nothing,
                          .advantage = of_sequence_.row,
                          .weight = one},
                         lanes<R>, terms);
  }

  /// Writes what a sequence gives, and returns what it adds up to.
  const tally<token_sum::size>& results(std::int64_t first, std::int64_t last,
                                        const sequence_terms& terms) {
    tally<token_sum::size>& sums = sums_;
    running_tally<token_sum::size>{}.store_to(sums);  // GCC would fill a new one word by word
    std::int64_t done = first;
    // Whole vectors have nothing to ask for each token. Which of a sequence's tokens are in them,
    // its length alone says: in other code, formulas may round another way.
    const std::int64_t whole = plain_ && found_.count >= few ? found_.count & -lanes<float> : 0;
    std::int64_t before = 0;
    for_each_run(
        first, last, [&](const scored_block& block) __attribute__((always_inline)) {
          const auto [begin, count] = block.at;
          if (block.pieces.row != nullptr) {  // all at once, since gaps are as short as pieces
            const std::int64_t end = block.row(count - 1) + 1;
            zero(done, end);
            done = end;
          }
          const std::int64_t here = std::clamp<std::int64_t>(whole - before, 0, count);
          add_results({{begin, here}, block.pieces}, true, terms, sums);
          add_results({{begin + here, count - here}, block.pieces}, false, terms, sums);
          before += count;
          if (block.pieces.row != nullptr) return;
          // Afterwards, when a line that they share with results is there.
          const bool apart = block.pieces.given();
          for_each_piece(apart ? block.pieces.piece : &block.at, apart ? block.at : range{0, count},
                         [&](std::int64_t, range piece) {
                           zero(done, piece.first);
                           done = piece.first + piece.count;
                         });
        });
    zero(done, last);
    return sums;
  }
  void add_results(const scored_block& run, bool whole, const sequence_terms& terms,
                   tally<token_sum::size>& sums) {
    if (run.at.count > block_size && add_block(run, whole, terms, sums)) return;
    for_each_block(run.at, [&](range at) {
      const scored_block block{at, run.pieces};
      if (!add_block(block, whole, terms, sums)) note(block);
    });
  }
  /// Whether all was finite.
  bool add_block(const scored_block& block, bool whole, const sequence_terms& terms,
                 tally<token_sum::size>& sums) {
    const int n = whole_vectors(block.at);
    read(block, ahead_.of_results, read_);
    const auto place = [&](row_writer<R>& to, const any_row& row) {
      const bool wanted = !row.empty() || block.at.count <= block_size;
      const bool lies = !row.empty() && !to.copies() && !block.pieces.given();
      return results_at<R>{wanted ? to.begin(block.at, block.pieces) : nullptr, to.limit(),
                           past_caches_ && whole && lies};
    };
    written_ = {.loss = place(losses_, out_.loss),
                .d_policy = place(d_policy_, out_.d_policy),
                .d_entropy = place(d_entropy_, out_.d_entropy),
                .has_d_entropy = !out_.d_entropy.empty()};
    const auto differentiate = !whole                  ? blocks_.any
                               : in_.reference.empty() ? blocks_.whole
                                                       : blocks_.whole_with_reference;
    bool finite = differentiate(loss_, read_, written_, n, terms, in_.entropy_coef, sums);
    if (!out_.d_entropy.empty()) d_entropies(read_, written_.d_entropy.row, n, terms);
    for (row_writer<R>* to : {&losses_, &d_policy_, &d_entropy_}) {
      finite &= to->write(block.at, block.pieces);
    }
    return finite;
  }

  void d_entropies(const tokens_at<R>& rows, R* to, int n, const sequence_terms& terms) const {
    const times<R> factor{in_.entropy_coef == 0 ? 0.0 : -in_.entropy_coef * terms.factor};
    for (int i = 0; i < n; i += lanes<R>) {
      const several<R> d = factor(load_several(rows.weight + i));
      store_several(to + i, select(rows.kept(i), d, several<R>(0)));
    }
  }

  /// Which rows of the block that was added last are not finite.
  [[gnu::cold, gnu::noinline]] void note(const scored_block& block) {
    std::fill_n(of_sequence_.row, block_size, of_sequence_.row[0]);
    for (std::int64_t i = 0; i < block.at.count; ++i) {
      if (read_.finite(i) && written_.finite(i)) continue;
      ++seen_.nonfinite;
      if (seen_.first_nonfinite < 0) seen_.first_nonfinite = block.row(i);
    }
  }

  /// f(block) for the scored rows of the sequence [first, last): as few blocks as can be.
  template <class F>
  void for_each_run(std::int64_t first, std::int64_t last, const F& f) {
    if (!in_runs_ || !found_.side_by_side()) {
      return scored_.for_each_block_of(found_, first, last, waiting_, f);
    }
    const auto hand_out = [&](range at) { f(scored_block{at}); };
    for_each_block({found_.first, found_.count}, hand_out, largest_run);
  }

  /// Tokens that are worth no call of their own, and as many as floats count one by one with ease.
  static constexpr std::int64_t few = 64, largest_run = 1 << 20;

  block<R> of_sequence_;  ///< its advantage, for each of its tokens
  row_reader<R> policy_, old_, reference_, advantage_, weight_, entropy_;
  row_writer<R> losses_, d_policy_, d_entropy_;
  const token_blocks<R>& blocks_;
  const void* loss_;
  const token_batch& in_;
  const token_batch_outputs& out_;
  double factor_;
  scored_rows scored_;
  const known_runs* known_;
  scored_run found_;  ///< of the sequence
  waiting_rows waiting_;
  asked_ahead<R> ahead_{0, false, false};
  token_sums seen_;
  tally<token_sum::size> sums_;  ///< of the sequence
  tokens_at<R> read_;            ///< the block that was added last
  token_results_at<R> written_;  ///< likewise
  averaging average_;
  bool plain_;
  bool past_caches_;  ///< whether to write whole vectors of results past them, and zeros
  bool in_runs_;      ///< sequences that nothing is copied of are one block
};

template <std::floating_point R, class Loss>
token_sums token_results_of(const Loss& loss, const token_batch& in, const token_batch_outputs& out,
                            double factor, const known_runs* known, range sequences) {
  return of_itself(loss, [&]<class One>(const One& one) {
    const token_blocks<R> blocks = token_blocks_of<R>(one);
    token_run<R> run{blocks, &one, loss.average, in, out, factor, known};
    for (std::int64_t i = 0; i < sequences.count; ++i) run.add(sequences.first + i);
    finish_past_caches();
    return run.seen();
  });
}

template <std::floating_point R, class Loss>
constexpr token_kernels<R, Loss> compiled_token_kernels() noexcept {
  return {.results = token_results_of<R, Loss>};
}

}  // namespace PROSPECT_CPU_ISA
}  // namespace prospect::inline v2::cpu::detail
PROSPECT_STRICT_END
