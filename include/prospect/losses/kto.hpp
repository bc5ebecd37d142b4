// Where kto was before 0.3; it goes with 0.4.
#pragma once

#include <prospect/losses/unpaired/kto.hpp>
