// What is wrong on one rank is an exception on all of them, and the next call is as good as ever;
// what MPI itself answers comes through by the name of its call.
#include <prospect/adapters/mpi.hpp>
#include <prospect/losses/losses.hpp>

#include <mpi.h>

#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "adapters/mpi_ranks.hpp"
#include "catch.hpp"
#include "refusals.hpp"

namespace {

/// What these calls answer instead of doing anything, on every rank.
int allgather_answers = MPI_SUCCESS, allgatherv_answers = MPI_SUCCESS;

}  // namespace

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
using testing::refusal;

bool last() { return testing::rank() == testing::ranks() - 1; }

/// What `call` throws: its message, or that of another rank's refusal as "rank R".
template <class Call>
std::string said(const Call& call) {
  try {
    call();
  } catch (const adapters::another_rank_refused& other) {
    return "rank " + std::to_string(other.rank);
  } catch (const std::exception& error) {
    return error.what();
  } catch (int number) {
    return "int " + std::to_string(number);
  }
  return "accepted";
}

/// Whether a call that the last rank alone has reason to refuse is refused by all: there with a
/// message that holds `what`; and whether the ranks are together afterwards.
template <class Call>
bool all_refuse(const std::string& what, const Call& call) {
  const std::string message = said(call);
  CAPTURE(message, what, testing::rank());
  const bool right = last() ? message.find(what) != std::string::npos
                            : message == "rank " + std::to_string(testing::ranks() - 1);
  CHECK(right);
  CHECK(adapters::sum_over_ranks(1.0, MPI_COMM_WORLD) == testing::ranks());
  return right;
}
/// The same of what only all ranks together show: everybody says it.
template <class Call>
bool all_say(const std::string& what, const Call& call) {
  const std::string message = refusal(call);
  CAPTURE(message, what, testing::rank());
  const bool right = message.find(what) != std::string::npos;
  CHECK(right);
  CHECK(adapters::sum_over_ranks(1.0, MPI_COMM_WORLD) == testing::ranks());
  return right;
}

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

TEST_CASE("a sequence of more tokens than are counted is refused by all", "[mpi][errors]") {
  if (testing::ranks() == 1) return;
  // One element, repeated: half of what may be counted, and one more on the last rank.
  const std::int64_t half = std::int64_t{1} << 24;
  const std::int64_t rows = half + (last() ? 1 : 0);
  const float x = -1;
  const std::int32_t target = 0;
  std::vector<std::int32_t> tokens(1);
  adapters::sequence_sums<float>({&x, rows, 0}, {&target, rows, 0},
                                 sequence_layout::padded(1, rows), {.tokens = tokens}, {},
                                 MPI_COMM_WORLD);
  CHECK(tokens[0] == half * testing::ranks() + 1);
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
    CHECK(said([&] { adapters::together([] { throw 1; }, own); }) == "int 1");
    MPI_Errhandler now{};
    MPI_Comm_get_errhandler(own, &now);
    CHECK(now == handler);
    MPI_Errhandler_free(&now);
  }
  MPI_Comm_free(&own);
}
