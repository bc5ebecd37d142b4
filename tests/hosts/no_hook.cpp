// A program without exceptions that says nowhere what happens to a call that makes no sense.
#include <prospect/class_weights.hpp>

int main() { return static_cast<int>(prospect::propose_class_weights(1, 1).bound); }
