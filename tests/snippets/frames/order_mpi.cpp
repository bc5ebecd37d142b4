// frame of docs/reduction_order.md, with prospect::adapters::mismatched_kl
#include <prospect/adapters/mpi.hpp>
#include <prospect/prospect.hpp>

#include <cstdint>
#include <vector>

#include "frame.hpp"

int main(int argc, char* argv[]) {
  MPI_Init(&argc, &argv);
  const std::vector<double> policy{-10, -20}, reference{-11, -18};
  const std::vector<double> kl_policy{-30, -31}, kl_reference{-31, -32.5};
  const std::vector<std::uint8_t> desirable{1, 0};
  std::vector<double> d_policy(2);
  // here
  int ranks = 0;
  MPI_Comm_size(MPI_COMM_WORLD, &ranks);
  REQUIRE(z.z == 1.25);
  REQUIRE(n == 2 * ranks);
  REQUIRE(metrics.loss.count == n);
  const double loss = 1 / (1 + std::exp(0.1 * (1 - 1.25))) + 1 / (1 + std::exp(0.1 * (1.25 + 2)));
  REQUIRE(frame::near(metrics.total, loss / 2));
  MPI_Finalize();
}
