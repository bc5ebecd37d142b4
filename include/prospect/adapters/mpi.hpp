// MPI: several ranks on the host, for trainers that spread a batch, a vocabulary or sequences over
// processes. Whoever includes this links MPI (3.0 or later, any implementation).
//
//   batch        `sum_over_ranks` of what each rank's `evaluate` gives, of counts for
//                `normaliser::over`, and of parameters' gradients; `mismatched_kl` of all ranks
//   vocabulary   `token_log_probs` of this rank's columns; their gradient takes no collective
//   sequences    `sequence_sums` where each rank has a piece of every sequence
//
// Bits matter, so numbers are gathered as they are and added up by every rank, from the first rank
// to the last: all ranks have the same result, in every run. MPI_Allreduce promises no order, and
// is not used. docs/reduction_order.md says which bits that keeps, and which not.
//
// Every rank of the communicator makes the same calls in the same order. What one rank refuses, all
// refuse: before numbers move, each says in a collective of 72 bytes whether it goes on, and where
// one does not, it throws its own exception and the others `another_rank_refused`, so that nobody
// waits for who has left. Memory for what is gathered is made in the same way. Four things are
// beyond that: a communicator that is none is refused where it is given; who finds no memory for a
// few words of each rank throws alone; without exceptions a refusal ends its process, and with it,
// as MPI has it, the job; and work that a call is given must hold no collective, since a rank that
// fails before it would not be there. One of this header is refused in there, unless its
// communicator is of one rank; the host's own nobody sees.
//
// MPI's own errors become `mpi_error`, whatever the communicator's error handler, which is in place
// while work is done; on which ranks is MPI's affair. Only the calling thread makes calls:
// MPI_THREAD_FUNNELED is enough. A call returns when this rank has its result. Ranks are of one
// byte order: numbers move as bytes.
#pragma once

#include <prospect/adapters/detail/mpi_ranks.hpp>
#include <prospect/cpu/sequences.hpp>
#include <prospect/cpu/tokens.hpp>

#include <concepts>
#include <cstdint>
#include <optional>
#include <type_traits>
#include <utility>
#include <vector>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::adapters {

inline namespace PROSPECT_CPU_ISA {

/// Does `work` on every rank, and returns what it gives here; or throws on every rank, if it threw
/// on any: here its exception, on the others `another_rank_refused`. For work that may be refused
/// on one rank, a batch that is read, say, before collectives: they come behind it, never in it.
template <class Work>
  requires std::invocable<const Work&>
std::invoke_result_t<const Work&> together(const Work& work, MPI_Comm communicator) {
  using result = std::invoke_result_t<const Work&>;
  const detail::ranks in{communicator};
  if constexpr (std::is_void_v<result>) {
    detail::announce(in, detail::goes_on, [&] { return work(), detail::announcement{}; });
  } else {
    std::optional<result> mine;
    detail::announce(in, detail::goes_on, [&] {
      mine.emplace(work());
      return detail::announcement{};
    });
    return *std::move(mine);
  }
}

/// What `work()` gives on every rank, added up from the first rank to the last by
/// `cpu::sum_over_ranks`: metrics, observations, sums or counts. `work` is called once on each
/// rank, and may be refused there: then this throws on all of them. It holds no collectives.
///
/// ```cpp
/// const auto metrics = prospect::adapters::sum_over_ranks(
///     [&] { return prospect::cpu::evaluate(prospect::kto{}, batch, z, outputs, by); }, ranks);
/// ```
///
/// Work may also give a range of parts, of any number, none included: then all parts of a rank are
/// added up behind those of the ranks before it, and the result does not depend on which rank has
/// which of them, as long as their order is the same.
///
/// @throws std::invalid_argument if no rank has a part, or ranks make different calls.
template <class Work>
  requires std::invocable<const Work&>
auto sum_over_ranks(const Work& work, MPI_Comm communicator) {
  return detail::sum_parts(detail::ranks{communicator}, detail::sums_parts, work);
}
/// The same of a value that is at hand.
template <cpu::rank_part T>
T sum_over_ranks(const T& mine, MPI_Comm communicator) {
  return sum_over_ranks([&mine] { return mine; }, communicator);
}

/// sums[j] = the sum of column j of the parts of all ranks, ((p0 + p1) + p2) + ..., a rank's own
/// from the first to the last. fp32 is added up in fp64 and rounded once.
///
/// Every rank receives all parts, 16 MiB (or one column) at a time: for the gradients of models
/// whose step takes longer than that.
/// @param mine [parts, n]: any number of parts, none included, the same n on every rank.
/// @param sums [n]; may be a row of `mine`.
/// @throws std::invalid_argument for sizes that differ, here or between ranks, or if no rank has a
///         part.
template <cpu::rank_number T>
void sum_over_ranks(matrix_view<const std::type_identity_t<T>> mine, strided_span<T> sums,
                    MPI_Comm communicator) {
  const detail::ranks in{communicator};
  const auto announced = detail::announce(in, detail::sums_rows, [&] {
    cpu::detail::check_matrix("mine", mine);
    cpu::detail::require_row("sums", sums, mine.columns);
    cpu::detail::output_row("sums", sums, mine.columns);
    return detail::announcement{
        .call = detail::kind_of<T>(), .parts = mine.rows, .columns = mine.columns};
  });
  detail::sum_columns(in, announced, mine, sums);
}

/// cpu::mismatched_kl of the rows of all ranks, of which some may have none: a rank's own are
/// observed as one batch, then added up in the order of the ranks.
/// @throws std::invalid_argument as cpu::mismatched_kl does, and if no rank has rows.
template <executor E = thread_pool>
observation mismatched_kl(const const_any_row& policy, const const_any_row& reference,
                          strided_span<const std::int32_t> tokens, MPI_Comm communicator,
                          E& on = thread_pool::shared()) {
  return detail::sum_parts(detail::ranks{communicator}, detail::observes, [&] {
    std::vector<observation> mine;
    if (!policy.empty() || !reference.empty() || !tokens.empty()) {
      mine.push_back(cpu::mismatched_kl(policy, reference, tokens, on));
    }
    return mine;
  });
}

/// cpu::token_log_probs where the vocabulary is split: rank r has its r-th part. The same bits on
/// every rank: partials are combined from the first part to the last.
///
/// `cpu::logits_gradient` of each part then takes this `log_prob` and `lse`, and the same options.
/// @param logits [tokens, this rank's columns of the vocabulary], of which there may be none.
/// @param targets [tokens], the same on every rank where they are scored: tokens of the whole
///        vocabulary.
/// @param options say with `first_token` and `vocabulary` which columns these are. Temperatures,
///        soft cap and mask are the same on every rank.
/// @throws std::invalid_argument as cpu::vocabulary_partials does; also if the parts are not the
///         whole vocabulary in the order of the ranks, if ranks differ in S, in what is scored, in
///         temperatures or soft cap, if one asks for statistics and another does not, or for more
///         than 2^31 / 80 tokens. Memory: 80 bytes for each token and rank.
template <storage S, executor E = thread_pool>
void token_log_probs(matrix_view<const std::type_identity_t<S>> logits, index_row targets,
                     const token_outputs<compute_t<S>>& out, const token_options& options,
                     MPI_Comm communicator, E& on = thread_pool::shared()) {
  const detail::ranks in{communicator};
  const std::int64_t tokens = targets.size();
  std::vector<vocabulary_partial> mine;
  std::vector<vocabulary_partial> all;
  const auto announced = detail::announce(in, detail::scores_tokens, [&] {
    constexpr auto bytes = static_cast<std::int64_t>(sizeof(vocabulary_partial));
    cpu::detail::check_outputs(out, tokens);
    if (tokens > detail::most_bytes / bytes) detail::reject("targets", "are more than 2^31 / 80");
    mine.resize(static_cast<std::size_t>(tokens));
    cpu::vocabulary_partials<S>(logits, targets, mine, options, out.statistics(), on);
    all.resize(mine.size() * static_cast<std::size_t>(in.size()));
    return detail::announcement{
        .call = static_cast<std::int64_t>(dtype_of<S>),
        .parts = 1,
        .columns = tokens,
        .statistics = out.statistics() ? 1 : 0,
        .vocabulary = options.vocabulary == 0 ? logits.columns : options.vocabulary,
        .first_token = options.first_token,
        .tokens = logits.columns,
        .scored = detail::fingerprint_of(targets, options.mask),
        .options = detail::fingerprint_of(options)};
  });
  detail::require_same(announced, &detail::announcement::columns, "the number of targets");
  detail::require_same(announced, &detail::announcement::statistics,
                       "whether statistics are asked for");
  detail::require_alike(announced, &detail::announcement::scored, "targets (or mask)");
  detail::require_alike(announced, &detail::announcement::options, "temperatures (or soft_cap)");
  detail::require_tiles(announced);
  const std::int64_t parts = in.size();
  in.gather(mine.data(), tokens, all.data());
  cpu::token_log_probs<compute_t<S>>({all.data(), parts, tokens}, targets, out, options.mask, on);
}

/// cpu::sequence_sums where sequences are cut over the ranks: of each, rank r has a piece, which
/// may be empty. A piece is added up from its first token to its last, then the pieces from the
/// first rank to the last: the same bits on every rank. `cpu::spread` needs no collective.
/// @param layout of this rank's rows; the same number of sequences on every rank.
/// @param out sums and counts of the whole sequences.
/// @throws std::invalid_argument as cpu::sequence_sums does; also if ranks differ in R or in the
///         number of sequences, or the tokens of one are more than 2^31 - 1.
template <std::floating_point R, executor E = thread_pool>
void sequence_sums(strided_span<const std::type_identity_t<R>> log_prob, index_row targets,
                   const sequence_layout& layout, const sequence_outputs& out, mask_row mask,
                   MPI_Comm communicator, E& on = thread_pool::shared()) {
  const detail::ranks in{communicator};
  const std::int64_t n = layout.sequences();
  std::vector<sum_count> sums;
  const auto announced = detail::announce(in, detail::sums_sequences, [&] {
    static_cast<void>(cpu::detail::check_sequences(targets, mask, layout));
    cpu::detail::output_row("log_prob (sums)", out.log_prob, n);
    cpu::detail::output_row("tokens", out.tokens, n);
    std::vector<double> sum(static_cast<std::size_t>(n));
    std::vector<std::int32_t> tokens(sum.size());
    cpu::sequence_sums<R>(log_prob, targets, layout, {.log_prob = sum, .tokens = tokens}, mask, on);
    for (std::size_t i = 0; i < sum.size(); ++i) {
      sums.push_back({.sum = sum[i], .count = static_cast<double>(tokens[i])});
    }
    return detail::announcement{.call = detail::kind_of<R>(), .parts = 1, .columns = n};
  });
  detail::sum_columns<sum_count>(in, announced, {sums.data(), 1, n}, sums);
  detail::require_countable(sums);
  for (std::int64_t i = 0; i < n; ++i) {
    const sum_count& whole = sums[static_cast<std::size_t>(i)];
    if (!out.log_prob.empty()) out.log_prob[i] = whole.sum;
    if (!out.tokens.empty()) out.tokens[i] = static_cast<std::int32_t>(whole.count);
  }
}

}  // namespace PROSPECT_CPU_ISA
}  // namespace prospect::inline v2::adapters
PROSPECT_STRICT_END
