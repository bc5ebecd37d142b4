// One program, with the single header or with the tree's: every built-in loss and its gradient on
// random samples, and the entry points on a random batch, as bits. usage: program SEED
#if defined(SINGLE)
#include "prospect_single.hpp"
#else
#include <prospect/prospect.hpp>
#endif

#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

prospect::paired_metrics second(const std::vector<float>& chosen,
                                const std::vector<float>& rejected);

namespace {

template <class... X>
void print(X... x) {
  (std::printf("%a ", static_cast<double>(x)), ...);
  std::printf("\n");
}

struct visitor {
  std::mt19937& random;

  float below_zero() { return -std::uniform_real_distribution<float>(0.01F, 30)(random); }
  float around_zero() { return std::normal_distribution<float>()(random); }
  prospect::completion<float> completion() {
    return {.policy = below_zero(), .ratio = around_zero(), .tokens = 7};
  }

  template <class Loss>
  void operator()(const Loss& loss) {
    if constexpr (prospect::paired_loss<Loss, float>) {
      const auto [value, d_chosen, d_rejected] = prospect::differentiate(
          loss, prospect::pair<float>{
                    .chosen = completion(), .rejected = completion(), .margin = around_zero()});
      print(value, d_chosen, d_rejected);
    } else if constexpr (prospect::unpaired_loss<Loss, float>) {
      const auto [value, d_policy, d_z] =
          prospect::differentiate(loss, prospect::unpaired<float>{.answer = completion(),
                                                                  .z = 0.1F,
                                                                  .desirable = random() % 2 == 0,
                                                                  .target = around_zero()});
      print(value, d_policy, d_z);
    } else {
      const auto [value, d_policy, d_sum] =
          prospect::differentiate(loss, prospect::token<float>{.policy = below_zero(),
                                                               .ratio = around_zero(),
                                                               .reference_ratio = around_zero(),
                                                               .advantage = around_zero(),
                                                               .sum = around_zero(),
                                                               .tokens = 7});
      print(value, d_policy, d_sum);
    }
  }
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  std::mt19937 random(static_cast<unsigned>(std::atoi(argv[1])));
  visitor one{random};
  prospect::for_each_loss(one);

  constexpr int rows = 6;
  constexpr int columns = 131;
  std::vector<float> logits(rows * columns);
  for (float& x : logits) x = 4 * one.around_zero();
  const std::vector<std::int64_t> targets{3, -100, 0, 130, 17, 64};
  std::vector<float> log_prob(rows);
  std::vector<double> lse(rows);
  prospect::cpu::token_log_probs<float>({logits.data(), rows, columns}, targets,
                                        {.log_prob = log_prob, .lse = lse});
  for (int i = 0; i < rows; ++i) {
    const auto t = static_cast<std::size_t>(i);
    print(log_prob[t], lse[t]);
  }

  std::vector<float> reference(rows);
  for (float& x : reference) x = one.below_zero();
  print(second(log_prob, reference).total);
}
