// The tests of the MPI adapter between MPI's beginning and its end, on every rank; and what the
// adapter says outside of them.
#include <prospect/adapters/mpi.hpp>

#include <mpi.h>

#include <cstdio>

#include "refusals.hpp"
#include "runner.hpp"

namespace {

bool refused(const char* when) {
  const bool right = testing::refuses(
      "communicator", [] { prospect::adapters::sum_over_ranks(1.0, MPI_COMM_WORLD); });
  if (!right) std::printf("wrong: a call %s is not refused\n", when);
  return right;
}

}  // namespace

int main(int argc, char* argv[]) {
  const bool before = refused("before MPI_Init");
  int given = 0;
  MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &given);
  const int failed = testing::run(argc, argv);
  MPI_Finalize();
  const bool after = refused("after MPI_Finalize");
  return before && after && given >= MPI_THREAD_FUNNELED ? failed : 1;
}
