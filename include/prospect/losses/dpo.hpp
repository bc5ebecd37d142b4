// Where dpo was before 0.3; it goes with 0.4.
#pragma once

#include <prospect/losses/paired/dpo.hpp>
