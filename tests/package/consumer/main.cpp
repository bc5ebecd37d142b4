// DPO on two pairs through the headers alone. At step 0 policy and reference agree: the loss is log
// 2 and the coefficient of a chosen completion -beta/2, here over a mean of two.
#include <prospect/prospect.hpp>

#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

int main() {
#if defined(PACKAGE_VERSION)
  const std::string version = std::to_string(PROSPECT_VERSION_MAJOR) + "." +
                              std::to_string(PROSPECT_VERSION_MINOR) + "." +
                              std::to_string(PROSPECT_VERSION_PATCH);
  if (version != PACKAGE_VERSION) {
    std::printf("header %s, package %s\n", version.c_str(), PACKAGE_VERSION);
    return 1;
  }
#endif
  const std::vector<float> chosen{-12.5F, -3.0F};
  const std::vector<float> rejected{-11.0F, -7.25F};
  std::vector<float> d_chosen(2);
  const auto metrics = prospect::cpu::evaluate<float>(prospect::dpo{.beta = 0.1},
                                                      {.policy_chosen = chosen,
                                                       .policy_rejected = rejected,
                                                       .reference_chosen = chosen,
                                                       .reference_rejected = rejected},
                                                      {.d_policy_chosen = d_chosen});
  std::printf("loss %.6f, coefficient %.6f\n", metrics.total, static_cast<double>(d_chosen[0]));
  const bool right =
      std::abs(metrics.total - std::log(2.0)) < 1e-6 && std::abs(d_chosen[0] + 0.025F) < 1e-8F;
  return right ? 0 : 1;
}
