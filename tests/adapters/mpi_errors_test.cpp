// What is wrong on one rank is an exception on all of them, and the next call is as good as ever;
// what MPI itself answers comes through by the name of its call.
#include <prospect/adapters/mpi.hpp>
#include <prospect/losses/losses.hpp>

#include <mpi.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

#include "adapters/mpi_ranks.hpp"
#include "adapters/mpi_refusals.hpp"
#include "catch.hpp"
#include "refusals.hpp"

namespace {

/// What these calls answer instead of doing anything, on every rank.
int allgather_answers = MPI_SUCCESS, allgatherv_answers = MPI_SUCCESS;
/// There is no memory for so many bytes, on this rank.
std::size_t too_much = std::numeric_limits<std::size_t>::max();

}  // namespace

// Not inlined: gcc would see memory of `new` go to `free`, and warn.
[[gnu::noinline]] void* operator new(std::size_t bytes) {
  void* const memory = bytes >= too_much ? nullptr : std::malloc(bytes == 0 ? 1 : bytes);
  return memory == nullptr ? throw std::bad_alloc{} : memory;
}
[[gnu::noinline]] void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept {
  return bytes >= too_much ? nullptr : std::malloc(bytes == 0 ? 1 : bytes);
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

// The names that MPI leaves to whoever watches it.
extern "C" {
int MPI_Allgather(const void* mine, int count, MPI_Datatype type, void* all, int counts,
                  MPI_Datatype types, MPI_Comm communicator) {
  if (allgather_answers != MPI_SUCCESS) return allgather_answers;
  return PMPI_Allgather(mine, count, type, all, counts, types, communicator);
}
int MPI_Allgatherv(const void* mine, int count, MPI_Datatype type, void* all, const int counts[],
                   const int places[], MPI_Datatype types, MPI_Comm communicator) {
  if (allgatherv_answers != MPI_SUCCESS) return allgatherv_answers;
  return PMPI_Allgatherv(mine, count, type, all, counts, places, types, communicator);
}
}

namespace {

namespace adapters = prospect::adapters;
using prospect::sequence_layout;
using prospect::strided_span;
using testing::all_refuse;
using testing::last;
using testing::said;

}  // namespace

TEST_CASE("what one rank refuses, all ranks refuse", "[mpi][errors]") {
  const std::vector<float> policy{-1, -2}, reference{-1.5F, -1};
  const std::vector<std::uint8_t> desirable{1, 0};
  const strided_span<const float> none;
  const auto bad = [&](const std::vector<float>& row) {
    return strided_span<const float>{row.data(), last() ? 1 : 2};
  };
  CHECK(all_refuse("reference", [&] {
    adapters::sum_over_ranks(
        [&] {
          return prospect::cpu::evaluate(
              prospect::kto{},
              prospect::unpaired_batch<float>{
                  .policy = policy, .reference = last() ? none : reference, .desirable = desirable},
              prospect::zero_point(), {}, prospect::normaliser::over(4));
        },
        MPI_COMM_WORLD);
  }));
  CHECK(all_refuse("reference",
                   [&] { adapters::mismatched_kl(policy, bad(reference), {}, MPI_COMM_WORLD); }));
  CHECK(all_refuse("policy", [&] {  // rows that are missing where others are given
    adapters::mismatched_kl(last() ? none : policy, reference, {}, MPI_COMM_WORLD);
  }));

  std::vector<double> sums(2);
  CHECK(all_refuse("sums", [&] {
    adapters::sum_over_ranks<double>({sums.data(), 1, 2}, {sums.data(), last() ? 1 : 2},
                                     MPI_COMM_WORLD);
  }));
  CHECK(all_refuse("stride 0", [&] {
    adapters::sum_over_ranks<double>({sums.data(), 1, 2}, {sums.data(), 2, last() ? 0 : 1},
                                     MPI_COMM_WORLD);
  }));
  CHECK(all_refuse("mine", [&] {
    adapters::sum_over_ranks<double>({last() ? nullptr : sums.data(), 1, 2}, sums, MPI_COMM_WORLD);
  }));

  const std::vector<std::int32_t> targets{0, 1};
  const std::vector<std::int32_t> beyond{0, last() ? 99 : 1};
  std::vector<float> log_prob(2);
  CHECK(all_refuse("targets[1]", [&] {
    const std::int64_t n = testing::ranks(), r = testing::rank();
    adapters::token_log_probs<float>({policy.data(), 2, 1}, beyond, {.log_prob = log_prob},
                                     {.first_token = r, .vocabulary = n + 1}, MPI_COMM_WORLD);
  }));
  CHECK(all_refuse("log_prob", [&] {
    const std::int64_t n = testing::ranks(), r = testing::rank();
    adapters::token_log_probs<float>({policy.data(), 2, 1}, targets,
                                     {.log_prob = {log_prob.data(), last() ? 1 : 2}},
                                     {.first_token = r, .vocabulary = n + 1}, MPI_COMM_WORLD);
  }));
  const std::vector<std::int64_t> offsets{0, 1, last() ? 3 : 2};
  CHECK(all_refuse("layout", [&] {
    adapters::sequence_sums<float>(policy, targets, sequence_layout::packed(offsets), {}, {},
                                   MPI_COMM_WORLD);
  }));
  CHECK(all_refuse("tokens", [&] {
    std::vector<std::int32_t> counts(last() ? 1 : 2);
    adapters::sequence_sums<float>(policy, targets, sequence_layout::padded(2, 1),
                                   {.tokens = counts}, {}, MPI_COMM_WORLD);
  }));
}

TEST_CASE("whatever work throws on one rank comes out there, and ends it on all", "[mpi][errors]") {
  CHECK(all_refuse("int 7", [] {
    adapters::together(
        [] {
          if (last()) throw 7;
        },
        MPI_COMM_WORLD);
  }));
  CHECK(all_refuse("bad_alloc", [] {
    adapters::sum_over_ranks([]() -> double { return last() ? throw std::bad_alloc{} : 1; },
                             MPI_COMM_WORLD);
  }));
  // What work gives comes out, whatever it is.
  const auto kept =
      adapters::together([] { return std::make_unique<int>(testing::rank()); }, MPI_COMM_WORLD);
  CHECK(*kept == testing::rank());
  int calls = 0;
  adapters::together([&] { ++calls; }, MPI_COMM_WORLD);
  CHECK(adapters::sum_over_ranks([&] { return ++calls * 1.0; }, MPI_COMM_WORLD) ==
        2.0 * testing::ranks());
  CHECK(calls == 2);
}

TEST_CASE("work that holds a collective ends, whichever rank fails before it", "[mpi][errors]") {
  if (testing::ranks() == 1) {  // nobody waits
    CHECK(adapters::sum_over_ranks([] { return adapters::sum_over_ranks(2.0, MPI_COMM_WORLD); },
                                   MPI_COMM_WORLD) == 2);
    return;
  }
  const auto nested = [](MPI_Comm inner, bool fails) {
    return said([&] {
      adapters::sum_over_ranks(
          [&] {
            if (fails && last()) throw std::runtime_error{"no batch"};
            return adapters::sum_over_ranks(1.0, inner);
          },
          MPI_COMM_WORLD);
    });
  };
  const auto is = [](const std::string& message, const std::string& what) {
    CAPTURE(message, what, testing::rank());
    CHECK(message.find(what) != std::string::npos);
    CHECK(adapters::sum_over_ranks(1.0, MPI_COMM_WORLD) == testing::ranks());
  };
  MPI_Comm own = MPI_COMM_NULL;
  MPI_Comm_dup(MPI_COMM_WORLD, &own);
  for (const MPI_Comm inner : {MPI_COMM_WORLD, own}) {
    is(nested(inner, true), last() ? "no batch" : "inside of the work");
    is(nested(inner, false), "inside of the work");
  }
  is(nested(MPI_COMM_SELF, true), last() ? "no batch" : "rank ");
  is(nested(MPI_COMM_SELF, false), "accepted");
  is(said([&] { adapters::together([&] { adapters::together([] {}, own); }, MPI_COMM_WORLD); }),
     "inside of the work");
  MPI_Comm_free(&own);
}

TEST_CASE("where one rank finds no memory, no rank waits for it", "[mpi][errors]") {
  const std::int64_t n = std::int64_t{1} << 17, r = testing::rank();
  const std::vector<double> row(static_cast<std::size_t>(n), 1.0);
  std::vector<double> sums(row.size());
  const auto without_memory = [&](std::int64_t bytes, const auto& call) {
    return [&call, bytes] {
      if (last()) too_much = static_cast<std::size_t>(bytes);
      struct again {
        ~again() { too_much = std::numeric_limits<std::size_t>::max(); }
      } const scope;
      call();
    };
  };
  const auto sum = [&] {
    adapters::sum_over_ranks<double>({row.data(), 1, n}, sums, MPI_COMM_WORLD);
  };
  CHECK(all_refuse("bad_alloc", without_memory(8 * n, sum)));
  const auto one_part = [&] {
    adapters::sum_over_ranks([&] { return std::vector<double>(last() ? 1 : 1000, 0.5); },
                             MPI_COMM_WORLD);
  };
  if (testing::ranks() > 1) CHECK(all_refuse("bad_alloc", without_memory(8000, one_part)));
  const std::vector<float> x(1000, 0.5F);
  const std::vector<std::int32_t> targets(1000, 0);
  std::vector<float> log_prob(1000);
  const auto scores = [&] {
    adapters::token_log_probs<float>({x.data(), 1000, 1}, targets, {.log_prob = log_prob},
                                     {.first_token = r, .vocabulary = testing::ranks()},
                                     MPI_COMM_WORLD);
  };
  CHECK(all_refuse("bad_alloc", without_memory(80'000 * testing::ranks(), scores)));
  scores();
  sum();
  CHECK(sums.back() == testing::ranks());
}

TEST_CASE("tokens of whole sequences are counted in 31 bits, and no more", "[mpi][errors]") {
  using prospect::sum_count;
  const double most = std::numeric_limits<std::int32_t>::max();
  adapters::detail::require_countable({{.sum = -1, .count = most}, {.sum = 0, .count = 0}});
  CHECK(testing::refuses("sequence 1", [&] {
    adapters::detail::require_countable({{.sum = -1, .count = 3}, {.sum = -1, .count = most + 1}});
  }));
  // Of one element, repeated: more than fp32 would count.
  const std::int64_t many = (std::int64_t{1} << 24) + (last() ? 17 : 0);
  const float x = -1;
  const std::int32_t target = 0;
  std::vector<std::int32_t> tokens(1);
  adapters::sequence_sums<float>({&x, many, 0}, {&target, many, 0},
                                 sequence_layout::padded(1, many), {.tokens = tokens}, {},
                                 MPI_COMM_WORLD);
  CHECK(tokens[0] == (std::int64_t{1} << 24) * testing::ranks() + 17);
}

TEST_CASE("a communicator that is none is refused", "[mpi][errors]") {
  CHECK(testing::refuses("MPI_COMM_NULL", [] { adapters::sum_over_ranks(1.0, MPI_COMM_NULL); }));
  if (testing::ranks() == 1) return;
  MPI_Comm half = MPI_COMM_NULL, between = MPI_COMM_NULL;
  MPI_Comm_split(MPI_COMM_WORLD, testing::rank() % 2, 0, &half);
  MPI_Intercomm_create(half, 0, MPI_COMM_WORLD, 1 - testing::rank() % 2, 1, &between);
  CHECK(testing::refuses("two groups", [&] { adapters::sum_over_ranks(1.0, between); }));
  MPI_Comm_free(&between);
  MPI_Comm_free(&half);
}

TEST_CASE("what MPI answers is thrown by the name of its call", "[mpi][errors]") {
  const std::vector<double> row(3, 1.0);
  std::vector<double> sums(3, 7.0);
  const auto add = [&] {
    adapters::sum_over_ranks<double>({row.data(), 1, 3}, sums, MPI_COMM_WORLD);
  };
  // On all ranks, and so at the same place of each.
  allgather_answers = MPI_ERR_OTHER;
  CHECK(said(add).find("MPI_Allgather: ") != std::string::npos);
  allgather_answers = MPI_SUCCESS;
  allgatherv_answers = MPI_ERR_TRUNCATE;
  try {
    add();
    CHECK(false);
  } catch (const adapters::mpi_error& error) {
    CHECK(error.code == MPI_ERR_TRUNCATE);
    CHECK(std::string{error.what()}.find("prospect: MPI_Allgatherv: ") == 0);
  }
  allgatherv_answers = MPI_SUCCESS;
  CHECK(sums == std::vector<double>(3, 7.0));
  add();
  CHECK(sums == std::vector<double>(3, 1.0 * testing::ranks()));
}

TEST_CASE("a communicator's error handler is put back", "[mpi][errors]") {
  MPI_Comm own = MPI_COMM_NULL;
  MPI_Comm_dup(MPI_COMM_WORLD, &own);
  for (const MPI_Errhandler handler : {MPI_ERRORS_ARE_FATAL, MPI_ERRORS_RETURN}) {
    MPI_Comm_set_errhandler(own, handler);
    adapters::sum_over_ranks(1.0, own);
    // It is the host's own as long as its work is done.
    adapters::together(
        [&] {
          MPI_Errhandler inside{};
          MPI_Comm_get_errhandler(own, &inside);
          CHECK(inside == handler);
          MPI_Errhandler_free(&inside);
        },
        own);
    CHECK(said([&] { adapters::together([] { throw 1; }, own); }) == "int 1");
    MPI_Errhandler now{};
    MPI_Comm_get_errhandler(own, &now);
    CHECK(now == handler);
    MPI_Errhandler_free(&now);
  }
  MPI_Comm_free(&own);
}
