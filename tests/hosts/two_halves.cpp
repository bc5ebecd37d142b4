// A program of which one half is built without exceptions. In this half a refused call throws, and
// an exception comes out of the pool, although the other half has used it first.
#include <prospect/class_weights.hpp>
#include <prospect/cpu/sequences.hpp>
#include <prospect/executor.hpp>
#include <prospect/losses/paired/dpo.hpp>

#include <cstdio>
#include <stdexcept>
#include <vector>

std::int64_t quiet_sum(prospect::thread_pool& pool);
double quiet_bound();
double quiet_loss(const std::vector<float>& row);

namespace {

template <class Error, class Call>
bool throws(const Call& call) {
  try {
    call();
  } catch (const Error&) {
    return true;
  }
  return false;
}

}  // namespace

int main() {
  prospect::thread_pool pool{3};
  const std::vector<float> two{-1, -2}, three{-1, -2, -3};
  const bool right = quiet_sum(pool) == 499500 && quiet_bound() == 1.5 && quiet_loss(two) > 0.69 &&
                     throws<std::invalid_argument>([] { prospect::propose_class_weights(0, 1); }) &&
                     throws<std::invalid_argument>([&] {
                       prospect::cpu::evaluate<float>(prospect::dpo{},
                                                      {.policy_chosen = two,
                                                       .policy_rejected = three,
                                                       .reference_chosen = two,
                                                       .reference_rejected = two},
                                                      {});
                     }) &&
                     throws<std::runtime_error>([&] {
                       pool.run(1000, [](std::int64_t) { throw std::runtime_error{"piece"}; });
                     }) &&
                     quiet_sum(pool) == 499500;
  std::puts(right ? "right" : "WRONG");
  return right ? 0 : 1;
}
