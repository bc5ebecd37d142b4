// An independent judge of generated text: multinomial naive Bayes over tokens, fitted on the
// held-out human labels, which training never sees. It looks at words only, so a model can please
// it and be broken; it is one column of the report, never the verdict.
#pragma once

#include <span>
#include <vector>

#include "data/data.hpp"

namespace align {

class judge {
 public:
  // `end` ends a whole completion. Throws std::invalid_argument when a class is empty.
  judge(std::span<const row> held_out, int vocabulary_size, token end);

  double probability_desirable(std::span<const token> completion) const;

  // Share of the rows whose thumb it guesses right.
  double accuracy(std::span<const row> rows) const;

 private:
  double prior_;                  // log odds of the classes
  std::vector<double> evidence_;  // log odds that each token adds
};

}  // namespace align
