// Runs the tests of a program as its command line says; 0 if they pass, else 1.
#pragma once

namespace testing {

int run(int argc, char* argv[]);

}  // namespace testing
