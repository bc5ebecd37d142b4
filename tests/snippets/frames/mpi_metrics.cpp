// frame of include/prospect/adapters/mpi.hpp, with prospect::cpu::evaluate
#include <prospect/adapters/mpi.hpp>
#include <prospect/prospect.hpp>

#include <cstdint>
#include <vector>

#include "frame.hpp"

int main(int argc, char* argv[]) {
  MPI_Init(&argc, &argv);
  const MPI_Comm ranks = MPI_COMM_WORLD;
  const std::vector<double> policy{-10, -20}, reference{-11, -18};
  const std::vector<std::uint8_t> desirable{1, 0};
  const prospect::unpaired_batch<double> batch{
      .policy = policy, .reference = reference, .desirable = desirable};
  const prospect::unpaired_outputs<double> outputs;
  const prospect::reference_point z = prospect::zero_point();
  const auto by = prospect::normaliser::over(4);
  // here
  REQUIRE(metrics.rewards_chosen.count == metrics.rewards_rejected.count);
  REQUIRE(frame::near(metrics.rewards_chosen.mean(), 0.1));
  MPI_Finalize();
}
