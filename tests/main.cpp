// The main function of the test programs.
#include "runner.hpp"

int main(int argc, char* argv[]) { return testing::run(argc, argv); }
