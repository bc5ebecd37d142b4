// message: (could not convert|no viable conversion).*strided_span<const float>
// A row of one storage type is not taken for another's: nothing is converted behind the caller's
// back.
#include <prospect/batch.hpp>

#include <vector>

#if defined(DEFECT)
using values = std::vector<double>;
#else
using values = std::vector<float>;
#endif

prospect::strided_span<const float> policy_row(const values& row) { return row; }
