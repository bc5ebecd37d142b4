// The string literals of a Jinja template: all that our recognising reads of one.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace align {

// Of its expressions and statements, in order, with their escapes undone. Comments have none.
std::vector<std::string> jinja_literals(std::string_view text);

}  // namespace align
