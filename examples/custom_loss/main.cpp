// A loss that Prospect does not have, written by its user: the exponential loss of the GPO family
// (Tang et al. 2024, arXiv:2402.05749), exp(-beta margin). It goes through the same entry point as
// the built-in losses, and its gradient, which nobody wrote, is compared with the closed form.
#include <prospect/cpu/sequences.hpp>

#include <cmath>
#include <cstdio>
#include <vector>

struct exponential {
  double beta = 0.1;
  static constexpr bool branch_free = true;  // a promise: the CPU takes several pairs at once

  template <class T>
  PROSPECT_HD T operator()(const prospect::pair<T>& p) const {
    return prospect::exp(-beta * p.log_ratio_margin());
  }
};

int main() {
  // Four pairs; the reference gives every completion -20 nats.
  const std::vector<float> chosen{-20.0F, -18.0F, -25.0F, -5.0F};
  const std::vector<float> rejected{-20.0F, -21.0F, -15.0F, -30.0F};
  const std::vector<float> reference(4, -20.0F);
  std::vector<float> loss(4);
  std::vector<float> d_chosen(4);
  std::vector<float> d_rejected(4);

  const exponential mine{.beta = 0.2};
  prospect::cpu::evaluate<float>(
      mine,
      {.policy_chosen = chosen,
       .policy_rejected = rejected,
       .reference_chosen = reference,
       .reference_rejected = reference},
      {.loss = loss, .d_policy_chosen = d_chosen, .d_policy_rejected = d_rejected},
      prospect::normaliser::sum());

  bool right = true;
  std::printf("margin      loss  d_chosen  d_rejected\n");
  for (std::size_t i = 0; i < loss.size(); ++i) {
    const double margin = static_cast<double>(chosen[i]) - static_cast<double>(rejected[i]);
    std::printf("%6.1f  %8.5f  %8.5f  %10.5f\n", margin, static_cast<double>(loss[i]),
                static_cast<double>(d_chosen[i]), static_cast<double>(d_rejected[i]));

    const double expected = std::exp(-mine.beta * margin);
    const auto close = [](double x, double y) { return std::abs(x - y) <= 1e-6 * std::abs(y); };
    right = right && close(loss[i], expected) && close(d_chosen[i], -mine.beta * expected) &&
            close(d_rejected[i], mine.beta * expected);
  }
  std::puts(right ? "as the closed form says" : "WRONG: differs from the closed form");
  return right ? 0 : 1;
}
