// What only all ranks together show to be wrong: sizes, types, calls, targets and options that are
// not the same on all of them. Everybody refuses it, and the next call is as good as ever.
#include <prospect/adapters/mpi.hpp>

#include <mpi.h>

#include <cmath>
#include <cstdint>
#include <functional>
#include <string>
#include <type_traits>
#include <vector>

#include "adapters/mpi_ranks.hpp"
#include "adapters/mpi_refusals.hpp"
#include "catch.hpp"

namespace {

namespace adapters = prospect::adapters;
using prospect::sequence_layout;
using prospect::strided_span;
using testing::all_say;
using testing::last;

}  // namespace

TEST_CASE("what ranks do not agree on, all of them refuse", "[mpi][errors]") {
  const std::vector<double> row(3, 1.0);
  std::vector<double> sums(3);
  CHECK(all_say("parts are none", [] {
    adapters::sum_over_ranks([] { return std::vector<double>{}; }, MPI_COMM_WORLD);
  }));
  CHECK(all_say("parts are none", [&] {
    adapters::sum_over_ranks<double>({row.data(), 0, 3}, sums, MPI_COMM_WORLD);
  }));
  CHECK(all_say("parts are none", [] {
    adapters::mismatched_kl(strided_span<const float>{}, strided_span<const float>{}, {},
                            MPI_COMM_WORLD);
  }));
  const std::int64_t n = testing::ranks(), r = testing::rank();
  const std::vector<float> x{0.5F, 1};
  const std::vector<std::int32_t> targets{0};
  std::vector<float> log_prob(1), entropy(1);
  const auto scores = [&](std::int64_t first, std::int64_t of, bool statistics = false) {
    adapters::token_log_probs<float>(
        {x.data(), 1, 1}, targets,
        {.log_prob = log_prob,
         .entropy = statistics ? strided_span<float>{entropy} : strided_span<float>{}},
        {.first_token = first, .vocabulary = of}, MPI_COMM_WORLD);
  };
  scores(r, n);
  CHECK(all_say("vocabulary", [&] { scores(r, n + 1); }));       // one token is nobody's
  CHECK(all_say("first_token", [&] { scores(r + 1, n + 1); }));  // the first one
  if (n == 1) return;
  CHECK(all_say("first_token", [&] { scores(n - 1 - r, n); }));  // in another order
  CHECK(all_say("first_token", [&] { scores(last() ? r - 1 : r, n); }));
  CHECK(all_say("vocabulary", [&] { scores(r, last() ? n : n + 1); }));
  CHECK(all_say("statistics", [&] { scores(r, n, last()); }));
  CHECK(all_say("columns", [&] {
    adapters::sum_over_ranks<double>({row.data(), 1, last() ? 2 : 3}, {sums.data(), last() ? 2 : 3},
                                     MPI_COMM_WORLD);
  }));
  CHECK(all_say("targets", [&] {
    const std::vector<std::int32_t> some(last() ? 2 : 1);
    std::vector<float> out(some.size());
    adapters::token_log_probs<float>({x.data(), last() ? 2 : 1, 1}, some, {.log_prob = out},
                                     {.first_token = r, .vocabulary = n}, MPI_COMM_WORLD);
  }));
  CHECK(all_say("columns", [&] {
    adapters::sequence_sums<float>({}, prospect::index_row{},
                                   sequence_layout::padded(last() ? 2 : 1, 0), {}, {},
                                   MPI_COMM_WORLD);
  }));
  // Calls that are not the same, though their sizes are.
  CHECK(all_say("different calls: rank " + std::to_string(n - 1), [&] {
    if (last()) {
      adapters::sum_over_ranks(prospect::paired_metrics{}, MPI_COMM_WORLD);
    } else {
      adapters::sum_over_ranks(prospect::unpaired_metrics{}, MPI_COMM_WORLD);
    }
  }));
  CHECK(all_say("different calls", [&] {
    if (last()) {
      adapters::together([] {}, MPI_COMM_WORLD);
    } else {
      adapters::sum_over_ranks(1.0, MPI_COMM_WORLD);
    }
  }));
}

TEST_CASE("calls of one size that are not the same are refused by all", "[mpi][errors]") {
  if (testing::ranks() == 1) return;
  const auto differ = [](const auto& one, const auto& other) {
    all_say("different calls", [&] { last() ? other() : one(); });
  };
  const std::vector<std::int32_t> target{0};
  const std::int64_t n = testing::ranks(), r = testing::rank();
  const auto scores = [&](auto storage) {
    return [&, storage] {
      using S = std::remove_const_t<decltype(storage)>;
      std::vector<prospect::compute_t<S>> log_prob(1);
      adapters::token_log_probs<S>({&storage, 1, 1}, target, {.log_prob = log_prob},
                                   {.first_token = r, .vocabulary = n}, MPI_COMM_WORLD);
    };
  };
  differ(scores(1.0F), scores(1.0));
  differ(scores(prospect::bfloat16{}), scores(prospect::float16{}));
  const auto pieces = [&](auto log_prob) {
    return [&, log_prob] {
      using R = std::remove_const_t<decltype(log_prob)>;
      adapters::sequence_sums<R>({&log_prob, 1}, target, sequence_layout::padded(1, 1), {}, {},
                                 MPI_COMM_WORLD);
    };
  };
  differ(pieces(1.0F), pieces(1.0));
  differ(pieces(1.0F), [] {
    const prospect::sum_count mine{.sum = 5, .count = 6};
    std::vector<prospect::sum_count> sums(1);
    adapters::sum_over_ranks<prospect::sum_count>({&mine, 1, 1}, sums, MPI_COMM_WORLD);
  });
  differ([] { adapters::sum_over_ranks(prospect::observation{}, MPI_COMM_WORLD); },
         [] {
           const std::vector<double> policy{-1, -2};
           adapters::mismatched_kl(policy, policy, {}, MPI_COMM_WORLD);
         });
}

TEST_CASE("ranks that score different tokens, or in another way, are refused by all",
          "[mpi][errors]") {
  if (testing::ranks() == 1) return;
  const std::int64_t n = testing::ranks(), r = testing::rank();
  const std::vector<float> x{1, 2, 3};
  std::vector<float> log_prob(3);
  struct tokens {
    std::vector<std::int32_t> targets{0, 1, 0};
    std::vector<std::uint8_t> mask{1, 1, 1};
    std::vector<float> inverse_temperatures{1, 1, 1};
    prospect::token_options options;
  };
  /// What the last rank has otherwise than the others.
  const auto call = [&](const std::function<void(tokens&)>& change) {
    return [&, change] {
      tokens of;
      if (last()) change(of);
      of.options.first_token = r, of.options.vocabulary = n;
      of.options.mask = of.mask;
      of.options.inverse_temperatures = of.inverse_temperatures;
      adapters::token_log_probs<float>({x.data(), 3, 1}, of.targets, {.log_prob = log_prob},
                                       of.options, MPI_COMM_WORLD);
    };
  };
  call([](tokens&) {})();
  all_say("targets (or mask) differ", call([](tokens& of) { of.targets[2] = 1; }));
  all_say("targets (or mask) differ", call([](tokens& of) { of.targets[2] = -100; }));
  all_say("targets (or mask) differ", call([](tokens& of) { of.mask[1] = 0; }));
  all_say("targets (or mask) differ", call([](tokens& of) { of.targets = {1, 0, 0}; }));
  all_say("temperatures (or soft_cap)", call([](tokens& of) { of.options.temperature = 0.5; }));
  all_say("temperatures (or soft_cap)", call([](tokens& of) { of.options.soft_cap = 30; }));
  all_say("temperatures (or soft_cap)", call([](tokens& of) { of.inverse_temperatures[2] = 2; }));
  // A token that is not scored may be said so in any way.
  const auto unscored = [&](bool by_mask) {
    tokens of;
    of.targets[1] = by_mask ? 77 : -100;
    of.mask[1] = by_mask ? 0 : 1;
    adapters::token_log_probs<float>({x.data(), 3, 1}, of.targets, {.log_prob = log_prob},
                                     {.first_token = r, .vocabulary = n, .mask = of.mask},
                                     MPI_COMM_WORLD);
  };
  unscored(last());
  CHECK(log_prob[1] == 0);
  CHECK(std::abs(log_prob[0] + std::log(static_cast<double>(n))) < 1e-6);
}
