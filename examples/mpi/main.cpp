// Data-parallel KTO: a bigram model on the ranks of MPI. A batch is four shards that the ranks
// share among them, and every sum over the batch is one over shards, in their order: so the loss
// curve and the model are the same bits for any number of ranks, as same_bits shows.
// usage: mpiexec -n RANKS mpi_kto [STEPS]
#include <prospect/adapters/mpi.hpp>
#include <prospect/losses/unpaired/kto.hpp>

#include <mpi.h>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <iterator>
#include <ranges>
#include <vector>

#include "bigram.hpp"

namespace {

using bigram::completions;
using bigram::shard;
using bigram::table;

constexpr std::int64_t shards = 4;
constexpr std::int64_t shard_size = 48;  // completions
constexpr std::int64_t shard_tokens = shard_size * bigram::length;
constexpr double learning_rate = 30;

// glue begin
namespace cpu = prospect::cpu;
using prospect::adapters::sum_over_ranks;
const auto layout = prospect::sequence_layout::padded(shard_size, bigram::length);

struct pass {
  std::vector<float> logits, log_prob = std::vector<float>(shard_tokens), d_token = log_prob;
  std::vector<double> lse = std::vector<double>(shard_tokens);
  std::vector<double> sums = std::vector<double>(shard_size), d_sums = sums;
};
pass score(const table& model, const completions& c) {
  pass p{bigram::forward(model, c)};
  cpu::token_log_probs<float>({p.logits.data(), shard_tokens, bigram::vocabulary}, c.targets,
                              {.log_prob = p.log_prob, .lse = p.lse});
  cpu::sequence_sums<float>(p.log_prob, c.targets, layout, {.log_prob = p.sums});
  return p;
}
/// KTO on the shards of all ranks, of which these are mine: metrics, and the table's gradient.
prospect::unpaired_metrics kto_step(const std::vector<shard>& mine, const table& model,
                                    const table& reference, table& gradient, MPI_Comm ranks) {
  const auto observe = [&](const shard& s) {
    return cpu::mismatched_kl(score(model, s.mismatched).sums, score(reference, s.mismatched).sums);
  };
  const auto z = prospect::reference_point::from(
      sum_over_ranks([&] { return mine | std::views::transform(observe); }, ranks));
  const double n = sum_over_ranks(static_cast<double>(mine.size() * shard_size), ranks);
  const std::int64_t size = std::ssize(gradient);
  std::vector<double> parts(mine.size() * gradient.size());
  const auto learn = [&](const shard& s) {
    pass p = score(model, s.own);
    const auto metrics =
        cpu::evaluate<double>(prospect::kto{}, {p.sums, score(reference, s.own).sums, s.desirable},
                              z, {.d_policy = p.d_sums}, prospect::normaliser::over(n));
    cpu::spread<float>(p.d_sums, s.own.targets, layout, p.d_token);
    cpu::logits_gradient<float>({p.logits.data(), shard_tokens, bigram::vocabulary}, s.own.targets,
                                p.log_prob, p.lse, p.d_token);
    bigram::backward(p.logits, s.own, parts.data() + (&s - mine.data()) * size);
    return metrics;
  };
  const auto all = sum_over_ranks([&] { return mine | std::views::transform(learn); }, ranks);
  sum_over_ranks<double>({parts.data(), std::ssize(mine), size}, gradient, ranks);
  return all;
}
// glue end

/// Shard number s of a step: the same completions, whichever rank asks.
shard write(const table& writer, int step, std::int64_t s) {
  bigram::random_source random{static_cast<std::uint64_t>(step * shards + s + 1) << 32};
  return bigram::write_shard(writer, shard_size, random);
}

/// Same bits, same digest.
std::uint64_t digest(const table& model) {
  std::uint64_t hash = 0xcbf29ce484222325U;
  for (const double x : model) hash = (hash ^ std::bit_cast<std::uint64_t>(x)) * 0x100000001b3U;
  return hash;
}

/// Whether the model is liked better than before, and is the same on every rank.
bool train(int steps, MPI_Comm ranks) {
  int rank = 0;
  int size = 0;
  MPI_Comm_rank(ranks, &rank);
  MPI_Comm_size(ranks, &size);
  bigram::random_source random{1};
  const table reference = bigram::random_table(random);
  table model = reference;
  table gradient(model.size());
  for (int step = 0; step < steps; ++step) {
    std::vector<shard> mine;  // with more ranks than shards, some have none
    for (std::int64_t s = shards * rank / size; s < shards * (rank + 1) / size; ++s) {
      mine.push_back(write(reference, step, s));
    }
    const auto metrics = kto_step(mine, model, reference, gradient, ranks);
    for (std::size_t i = 0; i < model.size(); ++i) model[i] -= learning_rate * gradient[i];
    if (rank == 0 && (step % 10 == 0 || step + 1 == steps)) {
      std::printf("step %3d  loss %.17g  kl_unclamped %.17g  liked %.4f\n", step, metrics.total,
                  metrics.kl_unclamped.mean(), bigram::quality(model));
    }
  }
  const double before = bigram::quality(reference);
  const double after = bigram::quality(model);
  if (rank == 0) {
    std::printf("a liked token: %.4f before, %.4f after; digest of the model %016llx\n", before,
                after, static_cast<unsigned long long>(digest(model)));
  }
  std::vector<std::uint64_t> of_rank(static_cast<std::size_t>(size));
  const std::uint64_t mine = digest(model);
  MPI_Allgather(&mine, 1, MPI_UINT64_T, of_rank.data(), 1, MPI_UINT64_T, ranks);
  const bool same = std::ranges::count(of_rank, mine) == size;
  if (!same) std::printf("WRONG: rank %d has another model than others\n", rank);
  return same && after > before + 0.01;
}

}  // namespace

int main(int argc, char* argv[]) {
  MPI_Init(&argc, &argv);
  int status = 1;
  try {
    status = train(argc > 1 ? std::atoi(argv[1]) : 100, MPI_COMM_WORLD) ? 0 : 1;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    MPI_Abort(MPI_COMM_WORLD, 2);  // the others may wait for this rank in a collective
  }
  MPI_Finalize();
  return status;
}
