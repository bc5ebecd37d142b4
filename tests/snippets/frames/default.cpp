// What a snippet in C++ may assume: the library, and that something went before it.
#include <prospect/prospect.hpp>

#include "frame.hpp"

// here, declarations

int main() {
  // here, statements
}
