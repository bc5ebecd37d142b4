// A second unit of the test program that includes the adapter: what lacks `inline` is defined
// twice.
#include <prospect/adapters/torch.hpp>
