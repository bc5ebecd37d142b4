// What the tests of the MPI adapter share: which rank this is, whether all ranks have the same
// bits, and batches cut over ranks in ways that are not fair. Every rank makes the same random
// numbers, and so knows what the others have.
#pragma once

#include <mpi.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "random.hpp"

namespace testing {

inline int rank() {
  int r = -1;
  MPI_Comm_rank(MPI_COMM_WORLD, &r);
  return r;
}
inline int ranks() {
  int n = 0;
  MPI_Comm_size(MPI_COMM_WORLD, &n);
  return n;
}

/// Whether this rank has the bits that rank 0 has.
template <class T>
bool as_on_rank_0(const std::vector<T>& mine) {
  std::vector<T> first = mine;
  MPI_Bcast(first.data(), static_cast<int>(first.size() * sizeof(T)), MPI_BYTE, 0, MPI_COMM_WORLD);
  return mine.empty() || std::memcmp(first.data(), mine.data(), mine.size() * sizeof(T)) == 0;
}

/// Rows [first, first + count) of a batch.
struct share {
  std::int64_t first, count;
};

/// n rows in as many shares as there are ranks, any of them empty.
inline std::vector<share> any_shares(random_source& random, std::int64_t n) {
  std::vector<std::int64_t> cuts{0, n};
  for (int r = 1; r < ranks(); ++r) {
    cuts.push_back(random.chance(0.3) ? cuts.back() : random.integer(0, n));
  }
  std::sort(cuts.begin(), cuts.end());
  std::vector<share> shares;
  for (std::size_t r = 0; r + 1 < cuts.size(); ++r) {
    shares.push_back({cuts[r], cuts[r + 1] - cuts[r]});
  }
  return shares;
}
inline share mine_of(const std::vector<share>& shares) {
  return shares[static_cast<std::size_t>(rank())];
}

}  // namespace testing
