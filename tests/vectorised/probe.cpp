// The loops over samples of a paired and an unpaired loss, by themselves in one object file; with
// ONE_BY_ONE, those of the same formulas without the promise that they are free of branches.
#include <prospect/cpu/sequences.hpp>
#include <prospect/losses/losses.hpp>

#if defined(ONE_BY_ONE)
struct of_pairs {
  prospect::dpo loss;
  template <class T>
  T operator()(const prospect::pair<T>& p) const {
    return loss(p);
  }
};
struct of_completions {
  prospect::kto loss;
  template <class T>
  T operator()(const prospect::unpaired<T>& e) const {
    return loss(e);
  }
};
#else
using of_pairs = prospect::dpo;
using of_completions = prospect::kto;
#endif

using namespace prospect::cpu::detail;
extern const pair_blocks<float> pairs{.plain = differentiate_block<false, float, of_pairs>,
                                      .with_options = differentiate_block<true, float, of_pairs>};
extern const answer_blocks<float> answers{
    .plain = differentiate_block<false, float, of_completions>,
    .with_options = differentiate_block<true, float, of_completions>};
