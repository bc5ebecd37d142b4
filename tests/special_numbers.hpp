// What is no ordinary number; in double, which a constant narrows to float without a loss.
#pragma once

#include <limits>

namespace testing {

inline constexpr double infinity = std::numeric_limits<double>::infinity();
inline constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();

}  // namespace testing
