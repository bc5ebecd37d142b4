// A unit that uses the headers, under the name that UNIT says.
#include "use.hpp"

bool UNIT();
bool UNIT() { return phases_are_right(); }
