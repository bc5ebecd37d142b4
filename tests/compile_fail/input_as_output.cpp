// message: (could not convert|no viable conversion).*strided_span<float>
// A row that may only be read cannot be handed over to be written.
#include <prospect/batch.hpp>

#include <vector>

#if defined(DEFECT)
using values = const std::vector<float>;
#else
using values = std::vector<float>;
#endif

prospect::strided_span<float> gradient_row(values& row) { return row; }
