// What the MPI adapter's tests of refusals share: what a call throws, and whether all ranks throw
// together and are together afterwards.
#pragma once

#include <prospect/adapters/mpi.hpp>

#include <mpi.h>

#include <exception>
#include <string>

#include "adapters/mpi_ranks.hpp"
#include "catch.hpp"
#include "refusals.hpp"

namespace testing {

inline bool last() { return rank() == ranks() - 1; }

/// What `call` throws: its message, or that of another rank's refusal as "rank R".
template <class Call>
std::string said(const Call& call) {
  try {
    call();
  } catch (const prospect::adapters::another_rank_refused& other) {
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
  CAPTURE(message, what, rank());
  const bool right = last() ? message.find(what) != std::string::npos
                            : message == "rank " + std::to_string(ranks() - 1);
  CHECK(right);
  CHECK(prospect::adapters::sum_over_ranks(1.0, MPI_COMM_WORLD) == ranks());
  return right;
}
/// The same of what only all ranks together show: everybody says it.
template <class Call>
bool all_say(const std::string& what, const Call& call) {
  const std::string message = refusal(call);
  CAPTURE(message, what, rank());
  const bool right = message.find(what) != std::string::npos;
  CHECK(right);
  CHECK(prospect::adapters::sum_over_ranks(1.0, MPI_COMM_WORLD) == ranks());
  return right;
}

}  // namespace testing
