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

namespace detail = prospect::cpu::detail;
template bool detail::differentiate_block<float>(of_pairs, detail::pairs_at<float>, int,
                                                 detail::times<float>, detail::times<float>, double,
                                                 detail::tally<detail::paired_sum::size>&);
template bool detail::differentiate_block<false>(of_completions, detail::answers_at<float>, int,
                                                 detail::times<float>, detail::times<float>, double,
                                                 detail::class_terms, detail::class_terms,
                                                 detail::tally<detail::unpaired_sum::size>&);
template bool detail::differentiate_block<true>(of_completions, detail::answers_at<float>, int,
                                                detail::times<float>, detail::times<float>, double,
                                                detail::class_terms, detail::class_terms,
                                                detail::tally<detail::unpaired_sum::size>&);
