// The instruction sets whose kernels this machine can be asked to run.

#pragma once

#include <kernels/isa.hpp>

#include <vector>

#include "catch.hpp"

namespace testing {

inline std::vector<prospect::kernels::isa> sets_of_this_machine() {
  using prospect::kernels::isa;
  std::vector<isa> sets;
  for (const isa set : {isa::baseline, isa::avx2, isa::avx512}) {
    if (set <= prospect::kernels::find_isa()) {
      sets.push_back(set);
    } else {
      WARN("not tested, because this machine lacks it: " << (set == isa::avx2 ? "avx2" : "avx512"));
    }
  }
  return sets;
}

}  // namespace testing
