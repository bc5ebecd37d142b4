// A trainer that is built without exceptions and without run-time types: right results, and a call
// that makes no sense reaches the trainer's own function with the sentence that it would throw.
// usage: no_exceptions [CALL]    prints the refusal of that call; without it, checks the results
#include <prospect/prospect.hpp>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#if defined(__cpp_exceptions) || defined(__cpp_rtti)
#error "this is to be compiled with -fno-exceptions -fno-rtti"
#endif

void prospect::refused(const char* message) {
  std::puts(message);
  std::exit(0);
}

namespace {

using rows = std::vector<float>;

double loss(const rows& chosen, const rows& rejected, rows& d_chosen) {
  return prospect::cpu::evaluate<float>(prospect::dpo{.beta = 0.1},
                                        {.policy_chosen = chosen,
                                         .policy_rejected = rejected,
                                         .reference_chosen = chosen,
                                         .reference_rejected = rejected},
                                        {.d_policy_chosen = d_chosen})
      .total;
}

double log_prob(std::int32_t target) {
  rows logits{1, 2, 3, 4};
  const std::vector<std::int32_t> targets{target};
  rows out(1);
  std::vector<double> lse(1);
  prospect::cpu::token_log_probs<float>({logits.data(), 1, 4}, targets,
                                        {.log_prob = out, .lse = lse});
  return static_cast<double>(out[0]);
}

/// Enough rows for the threads of the pool.
bool many_rows() {
  const rows chosen(40000, -1.0F);
  rows d_chosen(chosen.size());
  return std::abs(loss(chosen, chosen, d_chosen) - std::log(2.0)) < 1e-6;
}

}  // namespace

int main(int count, char** arguments) {
  const rows two{-12.5F, -3.0F}, three{-1.0F, -2.0F, -3.0F};
  rows d(2);
  if (count < 2) {
    const bool right = std::abs(loss(two, two, d) - std::log(2.0)) < 1e-6 &&
                       std::abs(d[0] + 0.025F) < 1e-8F &&
                       std::abs(log_prob(2) + 1.4401897) < 4e-6 && many_rows();
    std::puts(right ? "right" : "WRONG");
    return right ? 0 : 1;
  }
  const auto is = [&](const char* call) { return std::strcmp(arguments[1], call) == 0; };
  if (is("rows")) loss(two, three, d);
  if (is("target")) log_prob(4);
  if (is("weights")) prospect::propose_class_weights(0, 1);
  if (is("point")) prospect::constant_point(std::nan(""));
  std::puts("accepted");
  return 1;
}
