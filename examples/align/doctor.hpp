// What can be known to go wrong before any training: feedback that contradicts itself, that rewards
// a length and not a content, that leaves a class or a reference point without meaning.
#pragma once

#include <iosfwd>
#include <span>
#include <string>
#include <vector>

#include "data/data.hpp"
#include "objective.hpp"
#include "training/plan.hpp"

namespace align {

// A problem is what whoever trains must know; a fact is good to know.
enum class severity { fact, problem };

struct finding {
  severity kind;
  std::string sentence;
};

// Looks at the feedback as it was loaded and as the loss will see it (`train`). Computes nothing
// that needs a model.
std::vector<finding> examine(const dataset& data, const feedback& train, const objective& goal,
                             const loss_choice& choice, const schedule& plan);

// Problems first. Returns whether there are none.
bool print(std::ostream& out, std::span<const finding> findings);

}  // namespace align
