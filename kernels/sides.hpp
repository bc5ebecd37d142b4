// The sides of pairs among sequences, as a whole step adds up what they say about their sequences.
#pragma once

#include <prospect/core/index_row.hpp>
#include <prospect/core/strided_span.hpp>

namespace prospect::kernels {

/// Which sequences are the chosen, the rejected and the third ones, and dL/dP of each as its pair
/// has it. There may be no third ones.
struct sides_of_pairs {
  index_row which[3];
  strided_span<const double> d[3];
};

}  // namespace prospect::kernels
