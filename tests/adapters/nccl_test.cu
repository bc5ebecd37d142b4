// The NCCL adapter on communicators of several ranks that are played one after the other: what the
// others have is in memory before a rank calls, and the collective is a copy. Nothing of NCCL's is
// linked; nccl_one_rank_test.cu runs the real one.
#include <prospect/adapters/nccl.cuh>
#include <prospect/cpu/sequences.hpp>
#include <prospect/cuda/sequences.cuh>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

#include "catch.hpp"
#include "cuda/device.hpp"
#include "random.hpp"

struct ncclComm {
  int ranks = 0, rank = 0;
  std::vector<const void*> have{};  ///< what each of them gives
  ncclResult_t answer = ncclSuccess;
  int calls = 0;
};

extern "C" {
ncclResult_t ncclCommCount(const ncclComm_t comm, int* count) {
  *count = comm->ranks;
  return ncclSuccess;
}
ncclResult_t ncclCommUserRank(const ncclComm_t comm, int* rank) {
  *rank = comm->rank;
  return ncclSuccess;
}
const char* ncclGetErrorString(ncclResult_t result) {
  return result == ncclRemoteError ? "remote error" : "?";
}
ncclResult_t ncclAllGather(const void* mine, void* all, std::size_t count, ncclDataType_t type,
                           ncclComm_t comm, cudaStream_t stream) {
  ++comm->calls;
  if (comm->answer != ncclSuccess) return comm->answer;
  CHECK(type == ncclFloat64);
  for (int r = 0; r < comm->ranks; ++r) {
    const void* const from = r == comm->rank ? mine : comm->have[static_cast<std::size_t>(r)];
    std::byte* const to = static_cast<std::byte*>(all) + static_cast<std::size_t>(r) * 8 * count;
    if (from == to) continue;
    if (cudaMemcpyAsync(to, from, 8 * count, cudaMemcpyDeviceToDevice, stream) != cudaSuccess) {
      return ncclUnhandledCudaError;
    }
  }
  return ncclSuccess;
}
}

namespace {

namespace gpu = prospect::cuda;
namespace adapters = prospect::adapters;
using prospect::matrix_view;
using prospect::strided_span;
using prospect::sum_count;
using prospect::vocabulary_partial;
using testing::device_array;
using testing::require_success;

void require_done(const adapters::nccl_status& status) {
  CAPTURE(status.nccl, status.cuda);
  REQUIRE(status.done());
}
bool says(const char* problem, std::string_view what) {
  return problem != nullptr && std::string_view{problem}.find(what) != std::string_view::npos;
}

TEST_CASE("ranks that share a vocabulary get the same log-probs, and those of the whole") {
  testing::random_source random{2201};
  const std::int64_t tokens = 20, vocabulary = 90;
  const std::vector<std::int64_t> cuts{0, 31, 31 + 40, vocabulary};
  std::vector<float> x;
  std::vector<std::int64_t> y;
  for (std::int64_t t = 0; t < tokens; ++t) {
    for (std::int64_t v = 0; v < vocabulary; ++v) x.push_back(static_cast<float>(random.normal(3)));
    y.push_back(t % 6 == 5 ? prospect::ignored_target : random.integer(0, vocabulary - 1));
  }
  const device_array<float> logits(x);
  const device_array<std::int64_t> targets(y);
  std::vector<std::uint8_t> scored(static_cast<std::size_t>(tokens), 1);
  scored[3] = 0;
  const device_array<std::uint8_t> mask(scored);

  ncclComm comm{.ranks = 3};
  const device_array<vocabulary_partial> given(static_cast<std::size_t>(3 * tokens));
  for (std::size_t r = 0; r < 3; ++r) {
    const strided_span<vocabulary_partial> mine{
        given.data() + static_cast<std::int64_t>(r) * tokens, tokens};
    comm.have.push_back(mine.data());
    require_success(testing::with_scratch([&](gpu::scratch space) {
      return gpu::vocabulary_partials<float>(
          {logits.data() + cuts[r], tokens, cuts[r + 1] - cuts[r], vocabulary}, targets.input(),
          mine, {.first_token = cuts[r], .vocabulary = vocabulary, .mask = mask.input()}, true,
          space, nullptr);
    }));
  }
  const auto n = static_cast<std::size_t>(tokens);
  const device_array<float> whole(n), whole_entropy(n);
  require_success(testing::with_scratch([&](gpu::scratch space) {
    return gpu::token_log_probs<float>({logits.data(), tokens, vocabulary}, targets.input(),
                                       {.log_prob = whole.row(), .entropy = whole_entropy.row()},
                                       {.mask = mask.input()}, space, nullptr);
  }));
  std::vector<float> first;
  for (const bool in_place : {false, true}) {
    for (comm.rank = 0; comm.rank < 3; ++comm.rank) {
      CAPTURE(in_place, comm.rank);
      const device_array<float> log_prob(n), entropy(n);
      const device_array<double> lse(n);
      const device_array<vocabulary_partial> parts(3 * n);
      const auto* mine =
          static_cast<const vocabulary_partial*>(comm.have[static_cast<std::size_t>(comm.rank)]);
      if (in_place) {
        vocabulary_partial* const row = parts.data() + comm.rank * tokens;
        require_success(
            cudaMemcpy(row, mine, n * sizeof(vocabulary_partial), cudaMemcpyDeviceToDevice));
        mine = row;
      }
      require_done(adapters::token_log_probs(
          {mine, tokens}, {parts.data(), 3, tokens}, targets.input(),
          {.log_prob = log_prob.row(), .lse = lse.row(), .entropy = entropy.row()}, mask.input(),
          &comm, nullptr));
      testing::synchronise();
      const auto got = log_prob.host();
      if (first.empty()) first = got;
      CHECK(testing::same_bits(got, first));
      const auto want = whole.host();
      const auto h = entropy.host(), want_h = whole_entropy.host();
      std::int64_t wrong = 0;
      for (std::size_t t = 0; t < n; ++t) {
        wrong += std::abs(got[t] - want[t]) <= 1e-5F && std::abs(h[t] - want_h[t]) <= 1e-5F ? 0 : 1;
      }
      CHECK(wrong == 0);
      CHECK(got[3] == 0);
    }
  }
}

TEST_CASE("KTO on ranks that share a batch is KTO on the whole of it") {
  testing::random_source random{2202};
  const std::int64_t each = 7, ranks = 3, n = ranks * each;
  const auto numbers = [&] {
    std::vector<double> x;
    for (std::int64_t i = 0; i < n; ++i) x.push_back(random.normal(5));
    return x;
  };
  const auto policy = numbers(), reference = numbers(), kl_policy = numbers();
  std::vector<double> kl_reference;
  for (const double x : kl_policy) kl_reference.push_back(x - 0.3 + random.normal(0.1));
  std::vector<std::uint8_t> desirable;
  for (std::int64_t i = 0; i < n; ++i) desirable.push_back(random.chance(0.5) ? 1 : 0);

  const auto point = prospect::reference_point::from(
      prospect::cpu::mismatched_kl<double>(kl_policy, kl_reference));
  REQUIRE(point.z > 0.1);
  std::vector<double> want(static_cast<std::size_t>(n));
  static_cast<void>(prospect::cpu::evaluate<double>(
      prospect::kto{}, {.policy = policy, .reference = reference, .desirable = desirable}, point,
      {.d_policy = want}));

  const device_array<double> p(policy), q(reference), kp(kl_policy), kq(kl_reference);
  const device_array<std::uint8_t> up(desirable);
  const device_array<prospect::observation> seen(static_cast<std::size_t>(ranks));
  const device_array<double> counts(std::vector<double>(static_cast<std::size_t>(ranks), each));
  const auto part = [&](const auto& row, std::int64_t r) {
    return row.row().slice(r * each, each);
  };
  ncclComm observations{.ranks = static_cast<int>(ranks)};
  ncclComm denominators = observations;
  for (std::int64_t r = 0; r < ranks; ++r) {
    observations.have.push_back(static_cast<const sum_count*>(seen.data() + r));
    denominators.have.push_back(counts.data() + r);
    require_success(testing::with_scratch([&](gpu::scratch space) {
      return gpu::mismatched_kl<double>(
          {.policy = part(kp, r), .reference = part(kq, r), .observed = seen.data() + r}, space,
          nullptr);
    }));
  }
  double z = 0;
  for (std::int64_t r = 0; r < ranks; ++r) {
    CAPTURE(r);
    observations.rank = denominators.rank = static_cast<int>(r);
    const device_array<sum_count> all(static_cast<std::size_t>(ranks)), total(1);
    const device_array<double> all_counts(static_cast<std::size_t>(ranks)), count(1);
    const device_array<double> d(static_cast<std::size_t>(each));
    const device_array<prospect::unpaired_metrics> metrics(1);
    require_done(adapters::sum_over_ranks<sum_count>({seen.data() + r, 1}, {all.data(), ranks, 1},
                                                     total.row(), &observations, nullptr));
    require_done(adapters::sum_over_ranks<double>({counts.data() + r, 1},
                                                  {all_counts.data(), ranks, 1}, count.row(),
                                                  &denominators, nullptr));
    require_success(testing::with_scratch([&](gpu::scratch space) {
      return gpu::evaluate(
          prospect::kto{},
          prospect::unpaired_batch<double>{
              .policy = part(p, r), .reference = part(q, r), .desirable = part(up, r)},
          gpu::observed_point{total.data()}, {.d_policy = d.row()},
          gpu::denominator::over(count.data()), metrics.data(), space, nullptr);
    }));
    CHECK(count.host()[0] == n);
    CHECK(total.host()[0].count == n);
    const double mine = metrics.host()[0].kl.sum;
    CHECK(std::abs(mine - point.z) <= 1e-12);
    if (r > 0) CHECK(mine == z);  // to the last bit
    z = mine;
    const auto got = d.host();
    for (std::size_t i = 0; i < got.size(); ++i) {
      const double right = want[static_cast<std::size_t>(r * each) + i];
      CHECK(std::abs(got[i] - right) <= 1e-12 + 1e-9 * std::abs(right));
    }
  }
}

TEST_CASE("what NCCL answers comes through, and nothing follows a collective that is not there") {
  const device_array<double> mine(std::vector<double>{1, 2}), all(4), sums(2);
  ncclComm comm{.ranks = 2, .have = {mine.data(), mine.data()}};
  for (const ncclResult_t answer : {ncclRemoteError, ncclInProgress, ncclUnhandledCudaError}) {
    comm.answer = answer;
    CHECK(adapters::all_gather<double>(mine.input(), {all.data(), 2, 2}, &comm, nullptr) == answer);
    const adapters::nccl_status status = adapters::sum_over_ranks<double>(
        mine.input(), {all.data(), 2, 2}, sums.row(), &comm, nullptr);
    CHECK(status.nccl == answer);
    CHECK(status.cuda == cudaSuccess);
    CHECK_FALSE(status.done());
    testing::synchronise();
    CHECK(std::isnan(sums.host()[0]));  // as it was
  }
  CHECK(std::string_view{adapters::nccl_status{.nccl = ncclRemoteError}.text()} == "remote error");
  CHECK(std::string_view{adapters::nccl_status{.cuda = cudaErrorInvalidValue}.text()} ==
        cudaGetErrorString(cudaErrorInvalidValue));
  comm.answer = ncclSuccess;
  require_done(adapters::sum_over_ranks<double>(mine.input(), {all.data(), 2, 2}, sums.row(), &comm,
                                                nullptr));
  testing::synchronise();
  CHECK(sums.host() == std::vector<double>{2, 4});
  // Over what was given.
  require_done(adapters::sum_over_ranks<double>(mine.input(), {all.data(), 2, 2}, mine.row(), &comm,
                                                nullptr));
  testing::synchronise();
  CHECK(mine.host() == std::vector<double>{2, 4});
}

TEST_CASE("a gathering that makes no sense is refused before the collective") {
  const device_array<double> memory(12);
  double* const x = memory.data();
  ncclComm comm{.ranks = 3, .rank = 1, .have = {x, x, x}};
  const auto problem = [&](strided_span<const double> mine, matrix_view<double> all) {
    const char* why = adapters::problem(mine, all, comm.ranks, comm.rank);
    if (why != nullptr) {
      CHECK(adapters::all_gather<double>(mine, all, &comm, nullptr) == ncclInvalidArgument);
    }
    return why;
  };
  CHECK(problem({x + 9, 3}, {x, 3, 3}) == nullptr);
  CHECK(problem({x + 3, 3}, {x, 3, 3}) == nullptr);
  CHECK(problem({}, {x, 3, 0}) == nullptr);
  CHECK(says(problem({x, 3}, {x, 3, 3}), "as this rank's row"));
  CHECK(says(problem({x + 8, 3}, {x, 3, 3}), "as this rank's row"));
  CHECK(says(problem({x, 3}, {x + 2, 3, 3}), "as this rank's row"));
  CHECK(says(problem({x + 6, 3, 2}, {x, 3, 3}), "mine must lie in one piece"));
  CHECK(says(problem({x + 9, 3}, {x, 2, 3}), "row for each rank"));
  CHECK(says(problem({x + 9, 2}, {x, 3, 3}), "column for each"));
  CHECK(says(problem({x + 9, 2}, {x, 3, 2, 3}), "all must lie in one piece"));
  CHECK(says(problem({nullptr, 3}, {x, 3, 3}), "mine has no data"));
  CHECK(says(problem({x + 9, 3}, {nullptr, 3, 3}), "all has no data"));
  CHECK(adapters::all_gather<double>(memory.input(), {x, 3, 12}, nullptr, nullptr) ==
        ncclInvalidArgument);
  CHECK(comm.calls == 0);
  // Nothing to gather is no call.
  CHECK(adapters::all_gather<double>({}, {x, 3, 0}, &comm, nullptr) == ncclSuccess);
  CHECK(comm.calls == 0);
  // What would be refused afterwards is refused before.
  const adapters::nccl_status status =
      adapters::sum_over_ranks<double>({x + 9, 3}, {x, 3, 3}, {x, 2}, &comm, nullptr);
  CHECK(status.cuda == cudaErrorInvalidValue);
  CHECK(comm.calls == 0);
}

}  // namespace
